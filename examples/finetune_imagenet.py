# %% [markdown]
"""
Fine-tune U-Net from VGG16's ImageNet weights: first the new layers, then all of them.

    python examples/finetune_imagenet.py

The contracting path is VGG16, and knows ImageNet; the expanding path is new. Its first gradients
are noise that would spoil the contracting path, so that is frozen until the new layers have
learned, and then everything goes on at a hundredth of the rate. Keras downloads the weights, 59 MB;
`--weights none` does the same from random weights, offline. The images are drawn streets.
"""

# %%
import argparse
import tempfile
from pathlib import Path

import keras

import keras_fcn
from keras_fcn.datasets import SOURCES, Augmentation
from keras_fcn.visualize import training_curves, write_png

parser = argparse.ArgumentParser(description="Fine-tune U-Net from VGG16's ImageNet weights.")
parser.add_argument("--weights", choices=["imagenet", "none"], default="imagenet")
parser.add_argument("--epochs", type=int, default=6, help="of each of the two phases")
parser.add_argument("--steps", type=int, default=40, help="batches of an epoch")
parser.add_argument("--output", type=Path, default=Path("predictions/finetune_imagenet.png"))
options = parser.parse_args()
keras.utils.set_random_seed(0)

# %%
classes = SOURCES["shapes"].classes["street"]
void = SOURCES["shapes"].ignore
training = keras_fcn.datasets.load(
    "shapes/street",
    "train",
    batch_size=4,
    crop_size=96,
    shuffle=True,
    augment=Augmentation(flip="horizontal", scale=0.25, contrast=0.2),
    seed=0,
).repeat()
validation = keras_fcn.datasets.load("shapes/street", "val", batch_size=8, cache=True)

# %% [markdown]
# `filters` is about the expanding path only, VGG16 has its own. An eighth of the paper's width is
# enough for five classes. `keras_fcn.FCN8s(weights="imagenet")` begins in the same way: there the
# layers to freeze are `conv1_1` to `fc7`.

# %%
model = keras_fcn.UNet(
    num_classes=len(classes),
    encoder="vgg16",
    filters=(8, 16, 32, 64, 64),
    batch_norm=True,
    weights=None if options.weights == "none" else options.weights,
)
contracting = [layer for layer in model.layers if layer.name.startswith("conv")]  # conv1_1 to 5_3


def fit(learning_rate, first_epoch, log):
    """Train all layers that are not frozen for as many epochs as a phase has."""
    # compiled anew, because Keras takes note of frozen layers when it compiles
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate),
        loss=keras_fcn.losses.WeightedCrossentropy(ignore_class=void),
        metrics=[keras_fcn.metrics.SegmentationMetrics(len(classes), ignore_class=void)],
        jit_compile=False,  # on CPUs XLA compiles for long and is no faster
    )
    model.fit(
        training,
        validation_data=validation,
        initial_epoch=first_epoch,
        epochs=first_epoch + options.epochs,
        steps_per_epoch=options.steps,
        callbacks=[keras.callbacks.CSVLogger(log, append=True)],
        shuffle=False,  # the training set is shuffled
        verbose=2,
    )


# %%
with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "log.csv"
    for layer in contracting:
        layer.trainable = False
    print("The expanding path alone")
    fit(learning_rate=1e-3, first_epoch=0, log=log)

    for layer in contracting:
        layer.trainable = True
    print("All layers, at a hundredth of the rate")
    fit(learning_rate=1e-5, first_epoch=options.epochs, log=log)
    figure = training_curves(log)

# %%
for axes in figure.axes:  # where the second phase begins
    axes.axvline(options.epochs + 0.5, color="gray", linestyle="--")
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, figure)
print("Curves, with a line between the two phases:", options.output)
