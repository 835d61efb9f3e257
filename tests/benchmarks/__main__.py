"""`make bench`: measure everything in one run, side by side; write bench.md and bench.json.

Ratios are of times measured in the same run, in turn. Accuracy is that on held-out digits, another
tenth for each seed. The presets choose their best epoch by the loss on the same digits, the recipes
choose nothing.
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
from digitkaggle.core.split import split_indices
from digitkaggle.runs.data import find_default_data, read_data
from digitkaggle.runs.files import write_json
from digitkaggle.sample import load_sample

from . import evaluation, gpu, measures, pictures, recipes

PARTS = (
    "accuracy",
    "waiting",
    "ablation",
    "fraction",
    "augmentation",
    "loading",
    "memory",
    "growth",
)
# Only on request: an evaluation on images that no choice may use, work for a GPU, or pictures.
PARTS_ON_REQUEST = ("confirmation", "gpu", "pictures")
# The one-second recipe at its best: more than four epochs gain nothing.
ONE_SECOND_EPOCHS = 4
ABLATION_SEEDS = 3
CPU_PRESETS = ("fast", "balanced", "best", "classic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested parts, and write tables and JSON; returns 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="PATH", help="default: data/, else the sample")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="runs of each; twice as many of fast"
    )
    parser.add_argument("--first-seed", type=int, default=100, metavar="N")
    parser.add_argument(
        "--tutorial-seeds", type=int, default=1, metavar="N", help="runs of the slow tutorial"
    )
    parser.add_argument(
        "--only",
        choices=PARTS + PARTS_ON_REQUEST,
        action="append",
        help="only this part; may be repeated",
    )
    parser.add_argument(
        "--kind",
        action="append",
        metavar="NAME:FLAGS",
        help="for the part accuracy: evaluate runs with these flags out of fold, in place of "
        "presets and recipes; A+B: the mean of two kinds",
    )
    parser.add_argument("--all-images", action="store_true", help="kinds: use the last fifth, too")
    parser.add_argument("--presets", default="fast,balanced", help="for the part confirmation")
    parser.add_argument("--quick", action="store_true", help="a trial: a little of everything")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR")
    args = parser.parse_args(arguments)
    location = args.data or find_default_data()
    try:
        digits = load_sample() if location is None else read_data(location)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"machine": describe_machine(digits)}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, digits, Path(folder))
        for part in args.only or PARTS:
            results[part] = getattr(bench, f"measure_{part}")()
            print("\n".join(TABLES[part](results[part])), flush=True)
    lines = [f"Measured {results['machine']}.", ""]
    for part in args.only or PARTS:
        lines += [*TABLES[part](results[part]), ""]
    write_json(args.out / "bench.json", results)
    write_file(args.out / "bench.md", "\n".join(lines).encode())
    print(f"\nwritten to {args.out}: bench.md, bench.json")
    return 0


def describe_machine(digits: Digits) -> str:
    """A line about the date, the machine, the versions and the data."""
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
    """The parts: `measure_PART` returns the numbers of a part for JSON."""

    def __init__(self, args: argparse.Namespace, digits: Digits, folder: Path) -> None:
        self.args, self.digits, self.folder = args, digits, folder
        self.csvs = folder / "csv"
        self.csvs.mkdir()
        measures.write_table(self.csvs / "train.csv", digits.train_images, digits.train_labels)
        measures.write_table(self.csvs / "test.csv", digits.test_images)

    def measure_accuracy(self) -> dict[str, Any]:
        """Accuracy and time of presets and recipes, seed by seed; or of kinds."""
        if self.args.kind:
            digits = self.digits
            if not self.args.all_images:
                digits, _ = evaluation.split_off_confirmation(digits)
            return evaluation.evaluate_kinds(self.args.kind, digits, self.args.out / "kinds")
        quick = self.args.quick
        tutorial_epochs = 1 if quick else recipes.TUTORIAL_EPOCHS
        rows: dict[str, list[dict[str, float]]] = {}
        classic_steps: list[float] = []
        for number in range(2 * self.args.seeds):
            seed = self.args.first_seed + number
            for preset in ("fast", "balanced") if number < self.args.seeds else ("fast",):
                flags = ["--data", str(self.csvs), "--seed", str(seed), "--split-seed", str(seed)]
                flags += ["--epochs", "4"] if quick else []
                folder = self.folder / f"{preset}-{seed}"
                rows.setdefault(preset, []).append(measures.run_preset(preset, folder, *flags))
            if number >= self.args.seeds:
                continue
            rows.setdefault("one-second recipe", []).append(
                self.run_recipe(recipes.train_one_second, seed, 1 if quick else ONE_SECOND_EPOCHS)
            )
            if number < self.args.tutorial_seeds:
                rows.setdefault("tutorial recipe", []).append(
                    self.run_recipe(recipes.train_tutorial, seed, tutorial_epochs)
                )
            classic_steps += recipes.time_classic_steps(1, seed)
        per_image = statistics.median(classic_steps) / recipes.CLASSIC_BATCH
        return {
            "runs": rows,
            "classic_seconds_per_image": per_image,
            "classic_seconds": per_image * recipes.CLASSIC_IMAGES * recipes.CLASSIC_EPOCHS,
        }

    def run_recipe(
        self, train: Callable[..., recipes.TrainedRecipe], seed: int, epochs: int
    ) -> dict[str, float]:
        """Accuracy of a recipe, and its seconds of training."""
        images, labels = self.digits.train_images, self.digits.train_labels
        rows, held_out = split_indices(labels, 0.1, seed, by_class=True)
        trained = train(images[rows], labels[rows], seed, epochs)
        accuracy = recipes.measure_accuracy(trained.network, images[held_out], labels[held_out])
        return {"accuracy": accuracy, "train": trained.seconds}

    def measure_waiting(self) -> list[dict[str, float]]:
        """What of a whole run of `fast` is not training, beside what nobody can avoid."""
        repeats, flags = (1, ["--epochs", "1"]) if self.args.quick else (self.args.seeds, [])
        return measures.measure_waiting(self.csvs, self.folder, repeats, *flags)

    def measure_ablation(self) -> dict[str, Any]:
        """What each trick of `fast` brings: runs without it, seed by seed."""
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in WITHOUT}
        for number in range(min(self.args.seeds, ABLATION_SEEDS)):
            seed = str(self.args.first_seed + number)
            for place, (name, without) in enumerate(WITHOUT.items()):
                flags = ["--data", str(self.csvs), "--seed", seed, "--split-seed", seed, *without]
                flags += ["--epochs", "1"] if self.args.quick else []
                folder = self.folder / f"without-{place}-{seed}"
                rows[name].append(measures.run_preset("fast", folder, *flags))
        return rows

    def measure_fraction(self) -> dict[str, Any]:
        """The fraction of the machine's FLOP/s that each preset uses in training."""
        names = ("fast",) if self.args.quick else CPU_PRESETS
        return {name: measures.measure_fraction(*measures.prepare_preset(name)) for name in names}

    def measure_augmentation(self) -> dict[str, float]:
        """Our augmentation and scipy's, and the fraction of a step of `fast` that ours takes."""
        settings, compute = measures.prepare_preset("fast")
        figures = measures.measure_augmentation(settings, self.digits.train_images)
        step = measures.measure_fraction(settings, compute)["step_seconds"]
        seconds = figures["ours_us_per_image"] * settings.batch_size / 1e6
        return figures | {"fraction_of_a_step": seconds / step}

    def measure_loading(self) -> dict[str, float]:
        """Seconds from both CSVs to tensors, and of imports."""
        repeats = 1 if self.args.quick else 5
        figures = measures.measure_loading(self.csvs, repeats)
        imports = measures.measure_imports(repeats)
        return figures | {f"import {name}": seconds for name, seconds in imports.items()}

    def measure_memory(self) -> dict[str, float]:
        """Peak memory, in GB, of a short run of each preset, because the peak comes early."""
        presets = ("fast",) if self.args.quick else CPU_PRESETS
        peaks = {}
        for preset in presets:
            flags = ["--data", str(self.csvs), "--epochs", "1"]
            flags += ["--members", "2"] if preset == "best" else []
            folder = self.folder / f"memory-{preset}"
            peaks[preset] = measures.run_preset(preset, folder, *flags)["peak_gb"]
        return peaks

    def measure_growth(self) -> list[dict[str, float]]:
        """Time and memory over the number of images."""
        sizes = (1000, 2000) if self.args.quick else measures.GROWTH_SIZES
        return measures.measure_growth(self.digits, self.folder, sizes)

    def measure_gpu(self) -> dict[str, Any]:
        """Every preset on the GPU, if there is one."""
        return gpu.measure(self.digits, self.csvs, self.folder, self.args.quick)

    def measure_pictures(self) -> dict[str, Any]:
        """Pictures as people take them, made from the digits that a run held out."""
        return pictures.measure(self.digits, self.csvs, self.folder, self.args.quick)

    def measure_confirmation(self) -> dict[str, Any]:
        """Presets on the fifth of the images that no choice has used."""
        seeds = range(self.args.first_seed, self.args.first_seed + self.args.seeds)
        return evaluation.confirm(self.args.presets.split(","), seeds, self.digits)


# `fast` without one trick at a time: the flags that remove it.
WITHOUT = {
    "fast": [],
    "without small images first (2 epochs at 28, equal time)": [
        "--image-sizes",
        "28",
        "--epochs=2",
    ],
    "without Muon (Adam, 0.005)": ["--optimizer", "adam", "--learning-rate", "0.005"],
    "without zoom, like the classic recipe": ["--zoom", "0"],
    "without weight decay": ["--weight-decay", "0"],
    "without augmentation": ["--augmentation", "none", "--image-sizes", "28"],
    "without label smoothing": ["--label-smoothing", "0"],
    "without test-time augmentation": ["--views", "1"],
    "without one cycle": ["--schedule", "constant", "--learning-rate", "0.02"],
    "without bfloat16": ["--precision", "float32"],
}


def make_accuracy_table(figures: dict[str, Any]) -> list[str]:
    """A row for each preset and recipe, or for each kind."""
    if "rows" in figures:
        return evaluation.make_kinds_table(figures)
    lines = [
        "| | mean accuracy | std | runs | training | whole process |",
        "|---|---|---|---|---|---|",
    ]
    training = {}
    for name, runs in figures["runs"].items():
        accuracies = [100 * run["accuracy"] for run in runs]
        deviation = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else "-"
        training[name] = statistics.median(run["train"] for run in runs)
        processes = [run["process"] for run in runs if "process" in run]
        process = f"{statistics.median(processes):.1f} s" if processes else "-"
        lines.append(
            f"| {name} | {statistics.mean(accuracies):.2f} % | {deviation} | {len(runs)} "
            f"| {training[name]:.1f} s | {process} |"
        )
    classic = figures["classic_seconds"]
    lines.append(
        f"| classic recipe, estimated | (99.4 %) | - | - | {classic:,.0f} s "
        f"= 150 x 220,500 x {1000 * figures['classic_seconds_per_image']:.2f} ms | - |"
    )
    lines += ["", "| ratio of training times | |", "|---|---|"]
    ratio = training["one-second recipe"] / training["fast"]
    lines.append(f"| classic recipe / fast | {classic / training['fast']:,.0f} |")
    lines.append(f"| one-second recipe / fast | {ratio:.2f} |")
    if "tutorial recipe" in training:
        ratio = training["tutorial recipe"] / training["balanced"]
        lines.append(f"| tutorial recipe / balanced | {ratio:.2f} |")
    return lines


def make_waiting_table(figures: list[dict[str, float]]) -> list[str]:
    """Seconds of each run's parts, and all but training over import and reading; the medians."""
    names = list(figures[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    medians = {name: statistics.median(row[name] for row in figures) for name in names}
    return lines + [
        f"| {' | '.join(f'{row[n]:.2f}' for n in names)} |" for row in [*figures, medians]
    ]


def make_ablation_table(figures: dict[str, Any]) -> list[str]:
    """Accuracy and time without each trick, and the mean difference from `fast` over seeds."""
    lines = ["| | mean accuracy | std | difference from fast | training |", "|---|---|---|---|---|"]
    fast = [run["accuracy"] for run in figures["fast"]]
    for name, runs in figures.items():
        accuracies = [run["accuracy"] for run in runs]
        gaps = [100 * (a - b) for a, b in zip(accuracies, fast, strict=True)]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
        deviation = 100 * statistics.stdev(accuracies) if len(runs) > 1 else float("nan")
        gap = "-" if name == "fast" else f"{statistics.mean(gaps):+.2f} +- {error:.2f}"
        lines.append(
            f"| {name} | {100 * statistics.mean(accuracies):.2f} % | {deviation:.2f} | {gap} "
            f"| {statistics.median(run['train'] for run in runs):.1f} s |"
        )
    return lines


def make_fraction_table(figures: dict[str, Any]) -> list[str]:
    """FLOP/s of each preset's steps and of the matrix product."""
    lines = [
        "| | a step | MFLOP per image | GFLOP/s | matrix product, GFLOP/s | fraction |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        lines.append(
            f"| {name} | {1000 * row['step_seconds']:.0f} ms | {row['flop_per_image'] / 1e6:.1f} "
            f"| {row['flop_per_second'] / 1e9:.0f} | {row['matrix_product'] / 1e9:.0f} "
            f"| {row['fraction']:.2f} |"
        )
    return lines


def make_plain_table(figures: dict[str, float]) -> list[str]:
    """A row for each name and number."""
    rows = [f"| {name.replace('_', ' ')} | {number:.3g} |" for name, number in figures.items()]
    return ["| | |", "|---|---|", *rows]


def make_growth_table(figures: list[dict[str, float]]) -> list[str]:
    """Time and memory by number of images."""
    lines = [
        "| images | training, 1 epoch | us per image | whole process | peak memory |",
        "|---|---|---|---|---|",
    ]
    for row in figures:
        per_image = 1e6 * row["train"] / row["images"]
        lines.append(
            f"| {row['images']:,} | {row['train']:.1f} s | {per_image:.0f} "
            f"| {row['process']:.1f} s | {row['peak_gb']:.2f} GB |"
        )
    return lines


TABLES: dict[str, Callable[[Any], list[str]]] = {
    "accuracy": make_accuracy_table,
    "waiting": make_waiting_table,
    "ablation": make_ablation_table,
    "fraction": make_fraction_table,
    "augmentation": make_plain_table,
    "loading": make_plain_table,
    "memory": make_plain_table,
    "growth": make_growth_table,
    "confirmation": evaluation.make_confirmation_table,
    "gpu": gpu.make_table,
    "pictures": pictures.make_table,
}

if __name__ == "__main__":
    sys.exit(main())
