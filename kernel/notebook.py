# What the notebook shows below its chapters. Each cell makes one picture; `make kernel` puts them in.
# %% Some digits
from matplotlib import pyplot

show_log()
compute = choose_compute(PRESETS["best"])
settings = PRESETS["balanced" if compute.device.type == "cpu" else "best"]
warn(compute)
digits = read_digits(find_data())
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, digits.train_images[:40], [str(int(label)) for label in digits.train_labels[:40]])
# %% One digit, augmented forty times
once = digits.train_images[:1].float() / 255
versions = augmented(once.repeat(40, 1, 1, 1), settings, torch.Generator().manual_seed(0))
figure, axes = pyplot.subplots(figsize=(9, 4))
draw_images(axes, (255 * versions.clamp(0, 1)).round().byte())
# %% The run
started = time.perf_counter()
result = run(settings, digits, compute, each=on_every_gpu)
seconds = {"total": time.perf_counter() - started}
folder = kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel"
metrics = run_metrics(result, digits, SOURCE_DIGEST, seconds)
write_results(folder, result, digits, metrics)
print(metrics["validation"])
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
