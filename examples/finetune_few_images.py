# %% [markdown]
"""
Fine-tune a U-Net on a few images: from a shipped network, from ImageNet, and from scratch.

    python examples/finetune_few_images.py
    python examples/finetune_few_images.py --data nuclei/two --imagenet vgg16_notop.weights.h5

The network is that of `unet_vgg16_camvid`: its contracting path is VGG16, and it has learned the
streets of CamVid, 11 classes. Here it gets a few images of other classes. The same architecture
begins with no more than VGG16's convolutions from ImageNet, and with random weights, and sees the
same images for the same steps. Without options the images are drawn streets, which have other
colours, other shapes and no texture, and nothing is downloaded.
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

parser = argparse.ArgumentParser(description="Fine-tune on a few images, from several beginnings.")
parser.add_argument("--data", default="shapes/street", help="a key of `datasets.SOURCES`")
parser.add_argument("--images", type=int, nargs="+", default=[20], help="how many, in turn")
parser.add_argument("--imagenet", help="VGG16's weights, a file; `imagenet` downloads them")
parser.add_argument("--crop-size", type=int, default=96, help="pixels")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--steps", type=int, default=20, help="of an epoch")
parser.add_argument("--seeds", type=int, default=2, help="trainings of each kind")
parser.add_argument("--mixed-precision", action="store_true", help="bfloat16, if your machine has")
parser.add_argument("--output", type=Path, default=Path("predictions/finetune_few_images.png"))
options = parser.parse_args()
if options.mixed_precision:
    keras.config.set_dtype_policy("mixed_bfloat16")

# %% [markdown]
# A few images to train on, and 40 others, whole, to judge by. Steps of 4 crops show each image many
# times, so each is varied: mirrored, enlarged or reduced, lighter or darker.

# %%
name, _, configuration = options.data.partition("/")
classes, void = SOURCES[name].classes, SOURCES[name].ignore
classes = classes[configuration or next(iter(classes))] if isinstance(classes, dict) else classes
AUGMENTATION = Augmentation(flip="horizontal", scale=0.25, contrast=0.2, brightness=0.1)
validation = keras_fcn.datasets.load(options.data, "val[:40]", batch_size=1, cache=True)


def train(model, images, seed, shares):
    """Fit the model; return its mean IoU on the validation images after each epoch."""
    training = keras_fcn.datasets.load(
        options.data,
        f"train[:{images}]",
        batch_size=4,
        crop_size=options.crop_size,
        shuffle=True,
        augment=AUGMENTATION,
        seed=seed,
        cache=True,
    )
    # the rate rises in the first epoch, for the first gradients are noise
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, options.steps * options.epochs, warmup_target=2e-3, warmup_steps=options.steps
    )
    model.compile(
        optimizer=keras_fcn.optimizers.Muon(schedule, shares=shares),
        loss=keras_fcn.losses.WeightedCrossentropy(ignore_class=void),
        metrics=[keras_fcn.metrics.SegmentationMetrics(len(classes), ignore_class=void)],
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
# From the shipped network everything but the score layer keeps its weights; a warning says which
# layer starts fresh. The others are built from the same card. VGG16 learns at a tenth of the rate
# where it knows something already: at the whole rate it would lose that.
#
# Batch normalisation needs care with so few steps: Keras's moving averages take hundreds of steps
# to arrive at new data, so here they average over fewer.

# %%
SHIPPED = "unet_vgg16_camvid"
VGG16_SLOWLY = {r"\bconv\d_\d": 0.1}  # path of the weights: share of the rate
arguments = {**keras_fcn.pretrained()[SHIPPED]["arguments"], "num_classes": len(classes)}
beginnings = {
    f"from {SHIPPED}": (
        lambda: keras_fcn.from_pretrained(SHIPPED, num_classes=len(classes)),
        VGG16_SLOWLY,
    ),
    "from ImageNet": (
        lambda: keras_fcn.UNet(**arguments, weights=options.imagenet),
        VGG16_SLOWLY,
    ),
    "from scratch": (lambda: keras_fcn.UNet(**arguments), None),
}
if not options.imagenet:
    del beginnings["from ImageNet"]
curves = {(images, start): [] for images in options.images for start in beginnings}
for (images, start), runs in curves.items():
    build, shares = beginnings[start]
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        with warnings.catch_warnings(action="ignore" if runs else "default"):
            model = build()
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # by default 0.99
        runs.append(train(model, images, seed, shares))
        print(f"{images} images, {start}, seed {seed}: mean IoU {runs[-1][-1]:.1%}", flush=True)

# %% [markdown]
# The table: mean IoU in percent, the mean over the seeds and the least and greatest.

# %%
steps = options.steps * np.arange(1, options.epochs + 1)
print("| mean IoU, % |" + "".join(f" {count} steps |" for count in steps))
print("| --- |" + " --- |" * len(steps))
for (images, start), runs in curves.items():
    scores = 100 * np.array(runs)  # (seeds, epochs)
    cells = zip(scores.mean(0), scores.min(0), scores.max(0), strict=True)
    print(f"| {images} images, {start} |", end="")
    print("".join(f" {mean:.1f} ({low:.1f}-{high:.1f}) |" for mean, low, high in cells))

# %%
figure = load_matplotlib().figure.Figure((7, 4), dpi=100, layout="constrained")
places = figure.subplots(1, len(options.images), sharey=True, squeeze=False)[0]
for place, images in zip(places, options.images, strict=True):
    for start in beginnings:
        runs = curves[images, start]
        place.plot(steps, np.mean(runs, 0), marker=".", label=start)
        place.fill_between(steps, np.min(runs, 0), np.max(runs, 0), alpha=0.2)
    place.set(title=f"{images} images", xlabel="steps of 4 crops", xlim=0, ylim=(0, 1))
    place.grid(alpha=0.3)
places[0].set_ylabel(f"mean IoU, 40 others of {options.data}")
figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, figure)
print("Curves:", options.output)
