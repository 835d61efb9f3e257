"""Scikit-learn's cross-validation of `fast`: on the competition's data, or on the sample.

python examples/cross_validate.py [train.csv's folder or zip]
"""

import sys
from pathlib import Path

from sklearn.model_selection import cross_val_score

from digitkaggle import DigitClassifier, read_data
from digitkaggle.sample import sample_digits

digits = read_data(Path(sys.argv[1])) if len(sys.argv) > 1 else sample_digits()
X, y = digits.train_images.numpy().reshape(-1, 784), digits.train_labels.numpy()
scores = cross_val_score(DigitClassifier("fast", random_state=0), X, y, cv=3)
print("each third, learned from the other two:", ", ".join(f"{score:.2%}" for score in scores))
