"""The way to Kaggle and back: data, kernel, submission."""
