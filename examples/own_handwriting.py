"""Classify your own digits, photos or scans, with a classifier that is trained on the spot.

    python examples/own_handwriting.py three.jpg seven.png

`python -m digitkaggle predict` does the same with a run's model, and also finds unclear digits.
"""

import sys
from pathlib import Path

from digitkaggle import DigitClassifier
from digitkaggle.demo.digits import find_digits
from digitkaggle.demo.pictures import open_picture
from digitkaggle.sample import load_sample

digits = load_sample()
classifier = DigitClassifier("fast", random_state=0)
classifier.fit(digits.train_images.numpy().reshape(-1, 28, 28), digits.train_labels.numpy())
for path in sys.argv[1:]:
    found = find_digits(open_picture(Path(path)))
    if found.problem:
        print(f"{path}: {found.problem}")
    for digit in found.digits:  # cut out, in the middle, white on black
        [probabilities] = classifier.predict_proba(digit.image[None])
        print(f"{path}: {probabilities.argmax()}, with a confidence of {probabilities.max():.0%}")
