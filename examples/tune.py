# %% [markdown]
"""
Search for a U-Net and how to train it, with KerasTuner.

    python examples/tune.py

`HyperUNet` is a hypermodel like any other: here KerasTuner's random search tries it on the drawn
cells of `shapes/cells`, and nothing is downloaded. `keras-fcn tune` does the same from the command
line, and goes on after an interruption.
"""

# %%
import argparse
import tempfile
from pathlib import Path

import keras_tuner

import keras_fcn
from keras_fcn.datasets import SOURCES, Augmentation
from keras_fcn.visualize import load_matplotlib, write_png

parser = argparse.ArgumentParser(description="Search for a U-Net with KerasTuner.")
parser.add_argument("--trials", type=int, default=8)
parser.add_argument("--epochs", type=int, default=5, help="of each trial")
parser.add_argument("--output", type=Path, default=Path("predictions/tune.png"))
options = parser.parse_args()

# %%
classes = SOURCES["shapes"].classes["cells"]
training = keras_fcn.datasets.load(
    "shapes/cells",
    "train[:40]",
    batch_size=4,
    crop_size=96,
    shuffle=True,
    augment=Augmentation(flip="horizontal_and_vertical"),
    seed=0,
)
validation = keras_fcn.datasets.load("shapes/cells", "val[:20]", batch_size=4)

# %% [markdown]
# Whatever is given in `hyperparameters` takes the place of the entry of the same name. These
# networks are smaller than the usual ones of `HyperUNet`, 16 to 64 filters wide, so that two CPU
# cores can train them, and none has dropout.

# %%
hp = keras_tuner.HyperParameters()
hp.Choice("width", [4, 8, 16])
hp.Int("depth", 3, 4)
hp.Fixed("dropout", 0.0)
with tempfile.TemporaryDirectory() as folder:
    tuner = keras_tuner.RandomSearch(
        keras_fcn.HyperUNet(
            input_shape=(None, None, 1),
            num_classes=len(classes),
            ignore_class=SOURCES["shapes"].ignore,
        ),
        objective=keras_tuner.Objective("val_mean_iou", "max"),
        hyperparameters=hp,
        max_trials=options.trials,
        seed=1,
        directory=folder,
    )
    tuner.search(
        training, validation_data=validation, epochs=options.epochs, shuffle=False, verbose=0
    )
    trials = tuner.oracle.get_best_trials(options.trials)

# %% [markdown]
# The table of the trials, the best first.

# %%
names = ["width", "depth", "batch_norm", "upsampling", "optimizer", "learning_rate"]
print(f"{'mean IoU':>8}", *(f"{name:>13}" for name in names))
for trial in trials:
    values = [trial.hyperparameters.get(name) for name in names]
    cells = [f"{value:.1e}" if isinstance(value, float) else str(value) for value in values]
    print(f"{trial.score:8.1%}", *(f"{cell:>13}" for cell in cells))

# %% [markdown]
# What mattered: in the picture each trial is a point, with its width and depth.

# %%
figure = load_matplotlib().figure.Figure((7, 4), dpi=100, layout="constrained")
axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="mean IoU on 20 images")
for optimizer in ("adamw", "muon", "sgd"):
    chosen = [trial for trial in trials if trial.hyperparameters.get("optimizer") == optimizer]
    rates = [trial.hyperparameters.get("learning_rate") for trial in chosen]
    axes.scatter(rates, [trial.score for trial in chosen], label=optimizer)
    for rate, trial in zip(rates, chosen, strict=True):
        size = f" {trial.hyperparameters.get('width')}x{trial.hyperparameters.get('depth')}"
        axes.annotate(size, (rate, trial.score))
axes.set(title=f"{len(trials)} trials of {options.epochs} epochs of 40 images")
axes.legend()
axes.grid(alpha=0.3)
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, figure)
print("Trials:", options.output)
