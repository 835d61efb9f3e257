# The pictures of the notebook; `make kernel` puts each below the chapter that it names.
# %% data: Forty digits, four of each class
from matplotlib import pyplot

digits = read_digits(require_data())
of_class = [np.flatnonzero(digits.train_labels == digit)[:4] for digit in range(CLASSES)]
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, digits.train_images[np.stack(of_class, axis=1).ravel()])
# %% augment: One digit, augmented forty times
settings = PRESETS["best" if torch.cuda.is_available() else "balanced"]
copies = (digits.train_images[:1].float() / 255).repeat(40, 1, 1, 1)
generator = torch.Generator().manual_seed(0)
versions = augment(copies, settings, generator)
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, (255 * versions.clamp(0, 1)).round().byte())
# %% networks: The network, channels x height x width after each layer
network = build_compact_network(settings.widths, settings.depths, 0.0, torch.Generator()).eval()
values, place = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), 0.0
figure, axes = pyplot.subplots(figsize=(13, 3.5))
for layer in [None, *network]:
    before = values.shape
    if layer is not None:
        values = layer(values).detach()
    if layer is None or values.shape != before or isinstance(layer, nn.Conv2d):
        height, width = values.shape[2] if values.ndim == 4 else 1, values.shape[1] / 8
        corner = (place, -height / 2)
        axes.add_patch(pyplot.Rectangle(corner, width, height, color=TRAIN_COLOR, alpha=0.5))
        name = "image" if layer is None else type(layer).__name__
        shape = " x ".join(map(str, values.shape[1:]))
        axes.text(place + width / 2, -16, f"{name}\n{shape}", ha="left", va="top", rotation=-40)
        place += width + 4
axes.set(xlim=(-1, place), ylim=(-34, 15))
axes.axis("off")
# %% main: Train and predict
configure_logging()
started = time.perf_counter()
compute = choose_compute(settings)
if compute.device.type == "cpu" and settings.preset == "best":
    settings = PRESETS["balanced"]
warn_without_gpu(compute)
result = run(settings, digits, compute, map_members=partial(map_on_gpus, compute))
seconds = {"total": time.perf_counter() - started}
folder = get_kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel"
metrics = collect_metrics(result, digits, SOURCE_DIGEST, seconds)
write_results(folder, result, digits, metrics)
reached, spent = metrics["validation"], seconds["total"]
print(f"{reached['accuracy']:.2%} of {reached['images']:,} held-out digits, {spent:.0f} s")
# %% main: Loss and error rate over the epochs
figure, (losses, errors) = pyplot.subplots(1, 2, figsize=(12, 4))
draw_curves(losses, make_history_table(result), "loss", settings.image_sizes)
draw_curves(errors, make_history_table(result), "accuracy", settings.image_sizes)
# %% main: The confusion matrix
held_out = collect_held_out(result, digits)
figure, axes = pyplot.subplots(figsize=(7, 7))
draw_confusion(axes, held_out)
# %% main: The most confident errors
figure, axes = pyplot.subplots(figsize=(9, 6))
draw_mistakes(axes, digits, held_out)
# %% main: A quiz: the twenty hardest digits. What would you say?
probabilities, labels = held_out.probabilities, held_out.label
of_truth = probabilities[np.arange(len(labels)), labels]
hardest = np.argsort(of_truth, kind="stable")[:20]
figure, axes = pyplot.subplots(figsize=(9, 3))
draw_images(axes, digits.train_images[held_out.row[hardest]])
# %% main: The answers: true class, prediction, confidence
captions = [
    f"{labels[i]}\n{held_out.predicted[i]}, {held_out.confidence[i]:.0%}" for i in hardest
]
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, digits.train_images[held_out.row[hardest]], captions)
# %% main: Calibration: does confidence match accuracy?
bins = np.clip((10 * held_out.confidence).astype(int), 0, 9)
filled = np.unique(bins)
confidence = [held_out.confidence[bins == one].mean() for one in filled]
accuracy = [held_out.correct[bins == one].mean() for one in filled]
figure, axes = pyplot.subplots(figsize=(5, 5))
axes.plot([0, 1], [0, 1], ":", color="grey", label="perfect calibration")
sizes = 20 + 200 * np.bincount(bins)[filled] / len(bins)
axes.scatter(confidence, accuracy, s=sizes, color=TRAIN_COLOR)
axes.set(xlabel="confidence", ylabel="accuracy", title="larger points: more images")
axes.legend()
