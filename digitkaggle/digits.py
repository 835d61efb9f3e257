"""What a digit is here: a square image, and one of ten classes."""

from __future__ import annotations

IMAGE_SIZE = 28  # pixels along a side
CLASSES = 10
KAGGLE_TEST_IMAGES = 28_000  # in the competition's test.csv
