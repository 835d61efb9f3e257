"""Handwritten digits: from `train.csv` to `submission.csv`.

Load, split, augment, train with early stopping, predict, write. The program needs no arguments. On
Kaggle it finds the competition's data and the GPU by itself.

| preset | accuracy on digits it never saw | training, two CPU cores |
|---|---|---|
| `fast` | 99.43 % (ten runs, 8,400 digits that no choice used, standard error 0.07) | 6 s |
| `balanced`, the default on a CPU | 99.64 % (five splits, standard deviation 0.14) | 2 min |
| `best`, the default on a GPU | 99.68 % (one run, the same digits, standard error 0.06) | 4 min |

Read it from top to bottom. What is needed but not about digits stands in later chapters, which may
be skipped; comments name them. In a hurry, read the chapters on augmentation and the network for
what is special about digits, the optimizer and training for what makes it fast, and the run for the
order of it all."""
