"""`make bench`: measure everything in one run, side by side; write bench.md and bench.json.

Ratios are of times taken in the same run, in turn. Accuracy is that of held-out digits, a different
tenth for each seed; our presets choose their epoch by the same digits' loss, the recipes have
nothing to choose.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from digitkaggle.core.basics import Digits, InputError
from digitkaggle.core.results import write_file
from digitkaggle.core.split import split_rows
from digitkaggle.runs.files import find_data, read_data, write_json
from digitkaggle.sample import sample_digits

from . import gpu, judge, measures, recipes

PARTS = ("accuracy", "ablation", "fraction", "augmentation", "loading", "memory", "growth")
# Only when it is asked for: a look at images that no choice may look at, or work for a GPU.
LONG_PARTS = ("confirmation", "gpu")
# The one-second recipe at its best: more epochs than four gain it nothing.
ONE_SECOND_EPOCHS = 4
ABLATION_SEEDS = 3
CPU_PRESETS = ("fast", "balanced", "best", "classic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for, and write table and JSON; 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="PATH", help="the data; else data/, or sample")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="runs of each; of fast twice as many"
    )
    parser.add_argument("--first-seed", type=int, default=100, metavar="N")
    parser.add_argument(
        "--tutorial-seeds", type=int, default=1, metavar="N", help="runs of the slow tutorial"
    )
    parser.add_argument(
        "--only", choices=PARTS + LONG_PARTS, action="append", help="these parts alone"
    )
    parser.add_argument(
        "--kind",
        action="append",
        metavar="NAME:FLAGS",
        help="for the part accuracy: such runs out of fold, in place of presets and recipes; A+B: "
        "the mean of two",
    )
    parser.add_argument("--all-images", action="store_true", help="kinds: the last fifth, too")
    parser.add_argument("--presets", default="fast,balanced", help="for the part confirmation")
    parser.add_argument("--quick", action="store_true", help="a trial: little of everything")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR")
    flags = parser.parse_args(arguments)
    location = flags.data or find_data()
    try:
        digits = sample_digits() if location is None else read_data(location)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"machine": machine(digits)}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(flags, digits, Path(folder))
        for part in flags.only or PARTS:
            results[part] = getattr(bench, part)()
            print("\n".join(TABLES[part](results[part])), flush=True)
    lines = [f"Measured {results['machine']}.", ""]
    for part in flags.only or PARTS:
        lines += [*TABLES[part](results[part]), ""]
    write_json(flags.out / "bench.json", results)
    write_file(flags.out / "bench.md", "\n".join(lines).encode())
    print(f"\nwritten to {flags.out}: bench.md, bench.json")
    return 0


def machine(digits: Digits) -> str:
    """Where and on what this was measured, in a line."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    if torch.cuda.is_available():
        processor += f" and {torch.cuda.get_device_name()}"
    data = "the sample" if digits.test_labels is not None else "the competition's data"
    return (
        f"on {time.strftime('%Y-%m-%d')} on {torch.get_num_threads()} threads of {processor}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {data}"
    )


class Bench:
    """The parts, each a method of that name that returns numbers for JSON."""

    def __init__(self, flags: argparse.Namespace, digits: Digits, folder: Path) -> None:
        self.flags, self.digits, self.folder = flags, digits, folder
        self.csvs = folder / "csv"
        self.csvs.mkdir()
        measures.write_table(self.csvs / "train.csv", digits.train_images, digits.train_labels)
        measures.write_table(self.csvs / "test.csv", digits.test_images)

    def accuracy(self) -> dict[str, Any]:
        """Time to accuracy of presets and recipes, one seed after the other; or kinds."""
        if self.flags.kind:
            digits = self.digits if self.flags.all_images else judge.apart(self.digits)[0]
            return judge.judged(self.flags.kind, digits, self.flags.out / "kinds")
        quick = self.flags.quick
        tutorial_epochs = 1 if quick else recipes.TUTORIAL_EPOCHS
        rows: dict[str, list[dict[str, float]]] = {}
        classic_steps: list[float] = []
        for number in range(2 * self.flags.seeds):
            seed = self.flags.first_seed + number
            for preset in ("fast", "balanced") if number < self.flags.seeds else ("fast",):
                flags = ["--data", str(self.csvs), "--seed", str(seed), "--split-seed", str(seed)]
                flags += ["--epochs", "4"] if quick else []
                folder = self.folder / f"{preset}-{seed}"
                rows.setdefault(preset, []).append(measures.run_preset(preset, folder, *flags))
            if number >= self.flags.seeds:
                continue
            rows.setdefault("one-second recipe", []).append(
                self._recipe(recipes.train_one_second, seed, 1 if quick else ONE_SECOND_EPOCHS)
            )
            if number < self.flags.tutorial_seeds:
                rows.setdefault("tutorial recipe", []).append(
                    self._recipe(recipes.train_tutorial, seed, tutorial_epochs)
                )
            classic_steps += recipes.classic_seconds_per_step(1, seed)
        an_image = statistics.median(classic_steps) / recipes.CLASSIC_BATCH
        return {
            "runs": rows,
            "classic_seconds_an_image": an_image,
            "classic_seconds": an_image * recipes.CLASSIC_IMAGES * recipes.CLASSIC_EPOCHS,
        }

    def _recipe(
        self, train: Callable[..., recipes.Trained], seed: int, epochs: int
    ) -> dict[str, float]:
        images, labels = self.digits.train_images, self.digits.train_labels
        rows, held = split_rows(labels, 0.1, seed, by_class=True)
        trained = train(images[rows], labels[rows], seed, epochs)
        accuracy = recipes.recipe_accuracy(trained.network, images[held], labels[held])
        return {"accuracy": accuracy, "train": trained.seconds}

    def ablation(self) -> dict[str, Any]:
        """What each trick of `fast` brings: the runs without it, seed by seed."""
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in WITHOUT}
        for number in range(min(self.flags.seeds, ABLATION_SEEDS)):
            seed = str(self.flags.first_seed + number)
            for place, (name, without) in enumerate(WITHOUT.items()):
                flags = ["--data", str(self.csvs), "--seed", seed, "--split-seed", seed, *without]
                flags += ["--epochs", "1"] if self.flags.quick else []
                folder = self.folder / f"without-{place}-{seed}"
                rows[name].append(measures.run_preset("fast", folder, *flags))
        return rows

    def fraction(self) -> dict[str, Any]:
        """How much of the machine each preset's network uses in training."""
        names = ("fast",) if self.flags.quick else CPU_PRESETS
        return {
            name: measures.fraction_of_machine(*measures.preset_compute(name)) for name in names
        }

    def augmentation(self) -> dict[str, float]:
        """Our augmentation against scipy's, and its share of a step of `fast`."""
        settings, compute = measures.preset_compute("fast")
        figures = measures.augmentation(settings, self.digits.train_images)
        step = measures.fraction_of_machine(settings, compute)["step_seconds"]
        return figures | {"share": figures["ours_us"] * settings.batch_size / 1e6 / step}

    def loading(self) -> dict[str, float]:
        """Both CSVs to tensors; imports."""
        repeats = 1 if self.flags.quick else 5
        figures = measures.loading(self.csvs, repeats)
        return figures | {
            f"import {name}": seconds for name, seconds in measures.import_seconds(repeats).items()
        }

    def memory(self) -> dict[str, float]:
        """Peak memory of a whole run of each preset; a short one, since the peak comes early."""
        presets = ("fast",) if self.flags.quick else CPU_PRESETS
        peaks = {}
        for preset in presets:
            flags = ["--data", str(self.csvs), "--epochs", "1"]
            flags += ["--members", "2"] if preset == "best" else []
            folder = self.folder / f"memory-{preset}"
            peaks[preset] = measures.run_preset(preset, folder, *flags)["peak_gb"]
        return peaks

    def growth(self) -> list[dict[str, float]]:
        """Time and memory over the number of images."""
        sizes = (1000, 2000) if self.flags.quick else measures.GROWTH
        return measures.growth(self.digits, self.folder, sizes)

    def gpu(self) -> dict[str, Any]:
        """Every preset on the GPU that is chosen here, if there is one."""
        return gpu.measure(self.digits, self.csvs, self.folder, self.flags.quick)

    def confirmation(self) -> dict[str, Any]:
        """Presets on the fifth of the images that no choice has looked at."""
        seeds = range(self.flags.first_seed, self.flags.first_seed + self.flags.seeds)
        return judge.confirmed(self.flags.presets.split(","), seeds, self.digits)


# `fast` with one trick taken away at a time: the flags that do so.
WITHOUT = {
    "fast": [],
    "without small images first (2 epochs at 28, as long)": ["--image-sizes", "28", "--epochs=2"],
    "without Muon (Adam, 0.005)": ["--optimizer", "adam", "--learning-rate", "0.005"],
    "without zoom, as the classic": ["--zoom", "0"],
    "without weight decay": ["--weight-decay", "0"],
    "without augmentation": ["--augmentation", "none", "--image-sizes", "28"],
    "without label smoothing": ["--label-smoothing", "0"],
    "without views": ["--views", "1"],
    "without one cycle": ["--schedule", "constant", "--learning-rate", "0.02"],
    "without bfloat16": ["--precision", "float32"],
}


def accuracy_table(figures: dict[str, Any]) -> list[str]:
    """Rows of the time to accuracy, fastest preset first, or of kinds."""
    if "rows" in figures:
        return judge.judged_table(figures)
    lines = [
        "| | accuracy, mean | spread | runs | training | whole process |",
        "|---|---|---|---|---|---|",
    ]
    training = {}
    for name, runs in figures["runs"].items():
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else "-"
        training[name] = statistics.median(run["train"] for run in runs)
        whole = [run["process"] for run in runs if "process" in run]
        shown = f"{statistics.median(whole):.1f} s" if whole else "-"
        lines.append(
            f"| {name} | {statistics.mean(accuracies):.2f} % | {spread} | {len(runs)} "
            f"| {training[name]:.1f} s | {shown} |"
        )
    classic = figures["classic_seconds"]
    lines.append(
        f"| classic recipe, estimated | (99.4 %) | - | - | {classic:,.0f} s "
        f"= 150 x 220,500 x {1000 * figures['classic_seconds_an_image']:.2f} ms | - |"
    )
    lines += ["", "| ratio of training times | |", "|---|---|"]
    lines.append(f"| classic / fast | {classic / training['fast']:,.0f} |")
    lines.append(f"| one-second / fast | {training['one-second recipe'] / training['fast']:.2f} |")
    if "tutorial recipe" in training:
        ratio = training["tutorial recipe"] / training["balanced"]
        lines.append(f"| tutorial / balanced | {ratio:.2f} |")
    return lines


def ablation_table(figures: dict[str, Any]) -> list[str]:
    """Accuracy and time without each trick, and the difference seed by seed."""
    lines = ["| | accuracy, mean | spread | against fast | training |", "|---|---|---|---|---|"]
    whole = [run["accuracy"] for run in figures["fast"]]
    for name, runs in figures.items():
        accuracies = [run["accuracy"] for run in runs]
        gaps = [100 * (a - b) for a, b in zip(accuracies, whole, strict=True)]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        spread = 100 * statistics.stdev(accuracies) if len(runs) > 1 else float("nan")
        gap = "-" if name == "fast" else f"{statistics.mean(gaps):+.2f} +- {error:.2f}"
        lines.append(
            f"| {name} | {100 * statistics.mean(accuracies):.2f} % | {spread:.2f} | {gap} "
            f"| {statistics.median(run['train'] for run in runs):.1f} s |"
        )
    return lines


def fraction_table(figures: dict[str, Any]) -> list[str]:
    """FLOP/s of each preset's steps, beside the matrix product's."""
    lines = [
        "| | a step | MFLOP an image | GFLOP/s | matrix product, GFLOP/s | fraction |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        lines.append(
            f"| {name} | {1000 * row['step_seconds']:.0f} ms | {row['flop_per_image'] / 1e6:.1f} "
            f"| {row['flop_per_second'] / 1e9:.0f} | {row['matrix_product'] / 1e9:.0f} "
            f"| {row['fraction']:.2f} |"
        )
    return lines


def plain_table(figures: dict[str, float]) -> list[str]:
    """Names and numbers."""
    rows = [f"| {name} | {number:.3g} |" for name, number in figures.items()]
    return ["| | |", "|---|---|", *rows]


def growth_table(figures: list[dict[str, float]]) -> list[str]:
    """Time and memory by number of images."""
    lines = [
        "| images | training, 1 epoch | us an image | whole process | peak |",
        "|---|---|---|---|---|",
    ]
    for row in figures:
        an_image = 1e6 * row["train"] / row["images"]
        lines.append(
            f"| {row['images']:,} | {row['train']:.1f} s | {an_image:.0f} "
            f"| {row['process']:.1f} s | {row['peak_gb']:.2f} GB |"
        )
    return lines


TABLES: dict[str, Callable[[Any], list[str]]] = {
    "accuracy": accuracy_table,
    "ablation": ablation_table,
    "fraction": fraction_table,
    "augmentation": plain_table,
    "loading": plain_table,
    "memory": plain_table,
    "growth": growth_table,
    "confirmation": judge.confirmed_table,
    "gpu": gpu.table,
}

if __name__ == "__main__":
    sys.exit(main())
