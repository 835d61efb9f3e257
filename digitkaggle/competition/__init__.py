"""The competition on Kaggle: download the data, push the kernel, submit predictions."""
