"""Your own digits: photos or scans named by a classifier that is trained on the spot.

    python examples/own_handwriting.py three.jpg seven.png

`python -m digitkaggle predict` does the same with a run's model, and says more.
"""

import sys
from pathlib import Path

from digitkaggle import DigitClassifier
from digitkaggle.demo.pictures import find_digit, open_picture
from digitkaggle.sample import sample_digits

digits = sample_digits()
classifier = DigitClassifier("fast", random_state=0)
classifier.fit(digits.train_images.numpy().reshape(-1, 28, 28), digits.train_labels.numpy())
for path in sys.argv[1:]:
    found = find_digit(open_picture(Path(path)))  # cut out, in the middle, white on black
    if found.image is None:
        print(f"{path}: {found.problem}")
        continue
    [said] = classifier.predict_proba(found.image[None])
    print(f"{path}: {said.argmax()}, {said.max():.0%} sure")
