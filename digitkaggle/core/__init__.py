"""Handwritten digits: from `train.csv` to `submission.csv`.

Load, split, augment, train with early stopping, predict, write. The program needs no arguments. On
Kaggle it finds the competition's data and the GPU by itself.

| preset | accuracy on digits it never saw | training, two CPU cores |
|---|---|---|
| `fast` | 99.43 +- 0.07 % (ten runs, 8,400 digits that no choice used; standard error) | 6 s |
| `balanced`, the default on a CPU | 99.62 +- 0.07 % (three runs, the same digits) | 2 min |
| `best`, the default on a GPU | 99.67 +- 0.06 % (one run, the same digits) | 6 min |

Read it from top to bottom. What is needed but not about digits stands in later chapters, which may
be skipped; comments name them. In a hurry, read the chapters on augmentation and the network for
what is special about digits, the optimizer and training for what makes it fast, and the run for the
order of it all."""
