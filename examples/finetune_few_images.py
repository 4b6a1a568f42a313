# %% [markdown]
"""
Fine-tune a shipped network on twenty images, and compare with the same network from scratch.

    python examples/finetune_few_images.py

`unet_camvid` has learned the streets of CamVid, 11 classes. Here it gets 20 drawn streets of 5
classes, which have other colours, other shapes and no texture: all that can carry over is what a
network has learned below its last layer. The same architecture starts from random weights on the
same images, for the same steps. Such drawings are soon learned: what carries over is a head start
of some steps, and it is gone before the end. Nothing is downloaded.
"""

# %%
import argparse
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_fcn
from keras_fcn.datasets import SOURCES, Augmentation
from keras_fcn.visualize import load_matplotlib, write_png

parser = argparse.ArgumentParser(description="Fine-tune on twenty images, against from scratch.")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--steps", type=int, default=10, help="of an epoch")
parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
parser.add_argument("--output", type=Path, default=Path("predictions/finetune_few_images.png"))
options = parser.parse_args()

# %% [markdown]
# Twenty images to train on, and 40 others to judge by. 100 steps of 4 images show each image 20
# times, so each is varied: mirrored, enlarged or reduced, lighter or darker.

# %%
CLASSES = SOURCES["shapes"].classes["street"]
VOID = SOURCES["shapes"].ignore
AUGMENTATION = Augmentation(flip="horizontal", scale=0.25, contrast=0.2, brightness=0.1)
validation = keras_fcn.datasets.load("shapes/street", "val", batch_size=8, cache=True)


def train(model, seed):
    """Fit the model; return its mean IoU on the validation images after each epoch."""
    training = keras_fcn.datasets.load(
        "shapes/street",
        "train[:20]",
        batch_size=4,
        crop_size=96,
        shuffle=True,
        augment=AUGMENTATION,
        seed=seed,
        cache=True,
    )
    # the rate rises in the first epoch, for the first gradients are noise
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, options.steps * options.epochs, warmup_target=3e-3, warmup_steps=options.steps
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule),
        loss=keras_fcn.losses.WeightedCrossentropy(ignore_class=VOID),
        metrics=[keras_fcn.metrics.SegmentationMetrics(len(CLASSES), ignore_class=VOID)],
        jit_compile=False,  # on CPUs XLA compiles for long and is no faster
    )
    history = model.fit(
        training.repeat(),
        validation_data=validation,
        epochs=options.epochs,
        steps_per_epoch=options.steps,
        shuffle=False,  # the training set is shuffled
        verbose=0,
    )
    return history.history["val_mean_iou"]


# %% [markdown]
# Everything but the score layer keeps its weights; a warning says which layer starts fresh. The
# network from scratch is built from the same card. Both see the same images in the same order.
#
# Batch normalisation needs care with so few steps: Keras's moving averages take hundreds of steps
# to arrive at new data, so here they average over fewer.

# %%
card = keras_fcn.pretrained()["unet_camvid"]
arguments = {**card["arguments"], "num_classes": len(CLASSES)}
curves = {"unet_camvid, fine-tuned": [], "the same network from scratch": []}
for seed in range(options.seeds):
    keras.utils.set_random_seed(seed)
    with warnings.catch_warnings(action="default" if seed == 0 else "ignore"):
        pretrained = keras_fcn.from_pretrained("unet_camvid", num_classes=len(CLASSES))
    scratch = keras_fcn.UNet(**arguments)
    for name, model in zip(curves, (pretrained, scratch), strict=True):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # by default 0.99
        curves[name].append(train(model, seed))
        print(f"seed {seed}, {name}: mean IoU {curves[name][-1][-1]:.1%}", flush=True)

# %% [markdown]
# The table: mean IoU in percent, the mean over the seeds and the least and greatest.

# %%
steps = options.steps * np.arange(1, options.epochs + 1)
epochs = sorted({epoch for epoch in (2, 4, 6, 8) if epoch < options.epochs} | {options.epochs})
shown = [epoch - 1 for epoch in epochs]
print("| mean IoU, % |" + "".join(f" {steps[i]} steps |" for i in shown))
print("| --- |" + " --- |" * len(shown))
for name, runs in curves.items():
    scores = 100 * np.array(runs)[:, shown]  # (seeds, shown)
    cells = zip(scores.mean(0), scores.min(0), scores.max(0), strict=True)
    print(f"| {name} |" + "".join(f" {m:.1f} ({low:.1f}-{high:.1f}) |" for m, low, high in cells))

# %%
figure = load_matplotlib().figure.Figure((7, 4), dpi=100, layout="constrained")
axes = figure.add_subplot(xlabel="steps of 4 images", ylabel="mean IoU on 40 other images")
for name, runs in curves.items():
    axes.plot(steps, np.mean(runs, 0), marker=".", label=name)
    axes.fill_between(steps, np.min(runs, 0), np.max(runs, 0), alpha=0.2)
axes.set(title=f"20 images of shapes/street, {options.seeds} seeds", xlim=0, ylim=(0, 1))
axes.legend(loc="lower right")
axes.grid(alpha=0.3)
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, figure)
print("Curves:", options.output)
