"""The story that the kernel tells: its chapters, in an order that teaches, and why each is there.

Figures are measured: of the preset `fast` on the competition's 42,000 digits, a tenth of them held
out, as means over several splits. Who changes a recipe measures anew, and changes them here.
"""

from __future__ import annotations

from .flatten import Chapter

INTRODUCTION = """\
From `train.csv` to a checked `submission.csv`: load, split, augment, train with early stopping,
predict, write. It needs no flags, and on Kaggle it finds the competition's data and the GPU by
itself.

What it reaches on digits that it never saw: 99.40 % with the preset `fast` (mean of ten seeds and
splits, spread 0.10) after 10 s of training on two CPU cores, 99.62 % with `balanced`, which runs
on a CPU unless told otherwise (five seeds), after 135 s. On a GPU `best` runs, ten such networks.

Each part needs only those above it, so it can be read from top to bottom. In a hurry: what is
peculiar to digits is in `augment` and `networks`, what makes it fast in `optimizers` and
`training`, and the order of it all in `pipeline`."""

CHAPTERS = (
    Chapter(
        "Settings",
        """\
Everything that a run depends on stands in one table, and the presets are rows of it, side by
side. Who wants to know what a network is trained with need look nowhere else.""",
        ("errors", "log", "digits", "settings"),
    ),
    Chapter(
        "Data",
        """\
The digits are kept as the bytes that they are: 42,000 images take 33 MB, lie on the device
whole, and a batch is a slice of a shuffled index. No loader, no workers.

A tenth of the images of each class is held out and never trained on. The accuracy on them is
the only one claimed; its standard error at 99.6 % is 0.1 points on 4,200 images, so a single
split decides nothing.""",
        ("locations", "progress", "data", "split"),
    ),
    Chapter(
        "Augmentation",
        """\
A slightly turned, shifted, zoomed or leaning 7 is still a 7. Each time an image is seen it is
changed anew, at random, so there is no end of training digits and nothing to learn by heart.
In the three epochs of `fast` that gains nothing yet (0.00 points, give or take 0.04); it is for
longer training.

It runs on the device, on whole batches: 2.3 us an image on two CPU cores, 15 times faster
than `scipy` image by image, and 1.4 % of a training step. The trick is the grid of places to
look at: all pixels of a column share one product and all of a row another, which takes 1.1 us
where torch's own `affine_grid` takes 8.4.""",
        ("augment", "training_set"),
    ),
    Chapter(
        "The network",
        """\
Convolutions in three stages, batch-normalised. Three choices are worth a word:

- The first layer takes steps of two pixels. At 28 x 28 a convolution costs most and sees only
  strokes: that saves a quarter of the time (17 s of training, not 22.8) for 0.04 points, no
  more than chance would give.
- The last feature maps are pooled to their maxima. Where exactly a stroke lies matters
  little, no large linear layer is needed, and images of any size go in. Maxima beat averages
  by 0.05 points.
- Some members of `best` see each digit set upright, in the middle, and to a width. They are no
  better for it, but wrong about others: of two networks of one kind the mean's loss is 13.8
  thousandths, of two of different kinds 11.9 (10,500 digits held out, a quarter).""",
        ("networks",),
    ),
    Chapter(
        "Prediction",
        """\
A test image is looked at as it is, shifted along a diagonal both ways, then turned and zoomed a
little, and the probabilities are averaged; each view takes one more prediction. Three views give
a network trained as shortly as `fast` 0.06 points (99.31 to 99.38 %, eight splits). To one that
has trained for longer they give nothing that a held-out set of this size could show.

The device is chosen by doing a real piece of work on it, for what a GPU says of itself may
not hold.""",
        ("device", "prediction"),
    ),
    Chapter(
        "Training",
        """\
One loop, a screen long. What makes it fast:

- **Muon** steps each inner convolution by an orthogonalised gradient, so that no direction of
  its weights is neglected; plain SGD does the rest. With Adam `fast` loses 0.20 points (give or
  take 0.04, as always over three seeds and splits).
- **One cycle**: the learning rate climbs in a straight line, then falls to zero in another,
  which makes good use of few epochs: a constant rate loses 1.3 points.
- **Small images first.** They cost less, and bring nearly all that can be learned early. Two
  epochs at 20 x 20 pixels and one at 28 x 28 took the time of two at 28 x 28 (17.5 s for 17 s),
  and were 0.05 points better. No layer minds the size.
- **Label smoothing** asks for a little less than certainty, for 0.09 points (give or take
  0.08). The validation loss includes it: without it the loss would have taken epoch 5 of a
  run, at 99.14 %, over epoch 8, at 99.45 %, for smoothed networks grow less sure of themselves
  as they grow better.

The weights kept are those of the epoch with the lowest validation loss.""",
        ("optimizers", "training_state", "training"),
    ),
    Chapter(
        "What is kept",
        """\
A session on Kaggle may end at any moment. Files are written whole or not at all, the state of
the training is kept once a minute, and the same run, started again, goes on to the same
bytes.""",
        ("files", "lock", "run_folder", "checkpoint", "models", "interrupts", "budget"),
    ),
    Chapter(
        "The report",
        """\
How it learned, where it fails, and whether it is as sure as it is right: a page,
`report.html`, and its figures. Who is here for the digits may pass this chapter over.""",
        ("results", "summary", "figures", "report_page", "report"),
    ),
    Chapter(
        "Several networks, several GPUs",
        """\
Members are known by number: each has a seed and a fold of its own, and is the same wherever
it is trained. So two GPUs, or two machines, share them out through torch's own launcher; one
network is trained by all of them together. What is lost with a process is done again by those
that are left.""",
        ("screen", "resumable", "refit", "members", "ranks", "parallel", "sharing"),
    ),
    Chapter(
        "All of it in order",
        """\
Load, split, augment, train, predict, write. `pipeline` is the only part that knows the
order.""",
        ("submission", "run_results", "pipeline"),
    ),
    Chapter(
        "The command line",
        """\
Every setting is a flag, and none is needed.""",
        ("options", "kernel_main"),
    ),
)
