"""Cross-validate the preset `fast` with scikit-learn, on the competition's data or the sample.

python examples/cross_validate.py [folder or zip with train.csv and test.csv]
"""

import sys
from pathlib import Path

from sklearn.model_selection import cross_val_score

from digitkaggle import DigitClassifier, read_data
from digitkaggle.sample import load_sample

digits = read_data(Path(sys.argv[1])) if len(sys.argv) > 1 else load_sample()
X, y = digits.train_images.numpy().reshape(-1, 784), digits.train_labels.numpy()
scores = cross_val_score(DigitClassifier("fast", random_state=0), X, y, cv=3)
print("accuracy in each of three folds:", ", ".join(f"{score:.2%}" for score in scores))
