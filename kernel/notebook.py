# What the notebook shows below its chapters. Each cell makes one picture; `make kernel` puts them in.
# %% Some digits, ten of each class in a column
from matplotlib import pyplot

show_log()
compute = choose_compute(PRESETS["best"])
settings = PRESETS["balanced" if compute.device.type == "cpu" else "best"]
warn(compute)
digits = read_digits(find_data())
of_class = [np.flatnonzero(digits.train_labels == digit)[:4] for digit in range(CLASSES)]
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, digits.train_images[np.stack(of_class, axis=1).ravel()])
# %% One digit, augmented forty times
once = digits.train_images[:1].float() / 255
versions = augmented(once.repeat(40, 1, 1, 1), settings, torch.Generator().manual_seed(0))
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, (255 * versions.clamp(0, 1)).round().byte())
# %% The network: what goes from layer to layer, channels x height x width
network, values = build_network(settings, torch.Generator()).eval(), torch.zeros(1, 1, 28, 28)
figure, axes = pyplot.subplots(figsize=(13, 3.5))
place, name = 0.0, "image"
for layer in [None, *network]:
    before, values = values.shape, layer(values).detach() if layer else values
    if not layer or values.shape != before or isinstance(layer, nn.Conv2d):
        name = type(layer).__name__ if layer else "image"
        high, wide = values.shape[2] if values.ndim == 4 else 1, values.shape[1] / 8
        axes.add_patch(pyplot.Rectangle((place, -high / 2), wide, high, color=FIRST, alpha=0.5))
        shape = " x ".join(map(str, values.shape[1:]))
        axes.text(place + wide / 2, -16, f"{name}\n{shape}", ha="left", va="top", rotation=-40)
        place += wide + 4
axes.set(xlim=(-1, place), ylim=(-34, 15))
axes.axis("off")
# %% The run
started = time.perf_counter()
result = run(settings, digits, compute, each=on_every_gpu)
seconds = {"total": time.perf_counter() - started}
folder = kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel"
metrics = run_metrics(result, digits, SOURCE_DIGEST, seconds)
write_results(folder, result, digits, metrics)
reached = metrics["validation"]
print(f"{reached['accuracy']:.2%} of {reached['images']:,} held-out digits after {seconds['total']:.0f} s")
# %% How it learned
figure, (losses, errors) = pyplot.subplots(1, 2, figsize=(12, 4))
draw_curves(losses, history_table(result), "loss")
draw_curves(errors, history_table(result), "accuracy")
# %% What it takes for what
held_out = held_out_answers(result, digits)
figure, axes = pyplot.subplots(figsize=(7, 7))
draw_confusion(axes, held_out)
# %% The surest mistakes
figure, axes = pyplot.subplots(figsize=(9, 6))
draw_mistakes(axes, digits, held_out)
# %% A quiz: the twenty hardest digits. What would you say?
named, truth = held_out["probabilities"], held_out["label"]
of_truth = named[np.arange(len(truth)), truth]
hardest = np.argsort(of_truth, kind="stable")[:20]
figure, axes = pyplot.subplots(figsize=(9, 3))
draw_images(axes, digits.train_images[held_out["row"][hardest]])
# %% The answers, and what the network said
captions = [f"{truth[i]}\n{named[i].argmax()}, {named[i].max():.0%}" for i in hardest]
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, digits.train_images[held_out["row"][hardest]], captions)
# %% How sure it is, and how right
confidence, right = named.max(axis=1), named.argmax(axis=1) == truth
bins = np.clip((10 * confidence).astype(int), 0, 9)
filled = np.unique(bins)
sure, share = ([part[bins == one].mean() for one in filled] for part in (confidence, right))
figure, axes = pyplot.subplots(figsize=(5, 5))
axes.plot([0, 1], [0, 1], ":", color="grey", label="as sure as right")
axes.scatter(sure, share, s=20 + 200 * np.bincount(bins)[filled] / len(bins), color=FIRST)
axes.set(xlabel="confidence", ylabel="share that is right", title="larger: more images")
axes.legend()
