# %% [markdown]
"""
Train U-Net on slices of electron microscopy, by the recipe of its paper.

    python examples/train_em.py --data path/to/isbi2012
    python examples/train_em.py --data path/to/isbi2012 --filters 64 128 256 512 1024 --tile 572

The folder holds image/0.png, ... and label/0.png, ..., with 0 membrane and 255 cell; the last four
slices are kept for the scores. Without `--data` it takes the drawn cells of `shapes/cells`, and
downloads nothing. The second line is the paper's network and tile, for a GPU.
"""

# %%
import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import keras_fcn
from keras_fcn.datasets import Augmentation, add_border_weights
from keras_fcn.visualize import probability_map, write_png

parser = argparse.ArgumentParser(description="Train U-Net by the recipe of its paper.")
parser.add_argument("--data", type=Path, help="folder with image/ and label/")
parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64, 128], help="by level")
parser.add_argument("--tile", type=int, default=140, help="pixels, of the image")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--steps", type=int, default=100, help="tiles of an epoch")
parser.add_argument("--output", type=Path, default=Path("predictions/em.png"))
options = parser.parse_args()
keras.utils.set_random_seed(0)

# %% [markdown]
# The unpadded network: every convolution takes a pixel off each side, and so the map that comes out
# lacks a margin. Dropout at the end of the contracting path and He's initialisation are defaults.

# %%
model = keras_fcn.UNet(
    input_shape=(None, None, 1), num_classes=2, filters=options.filters, padding="valid"
)
check = model.get_layer("size_check")
if options.tile < check.minimum or (options.tile - check.minimum) % check.step:
    parser.error(f"--tile should be {check.minimum} + a multiple of {check.step} for this network")
inner = model.compute_output_shape((1, options.tile, options.tile, 1))[1]
margin = (options.tile - inner) // 2
print(f"Tiles of {options.tile}x{options.tile} give maps of {inner}x{inner}, {margin} pixels in")

# %% [markdown]
# Whole images are turned, flipped and deformed: normal displacements of 10 pixels on a 3x3 grid,
# between which bicubic interpolation makes them smooth.

# %%
augmentation = Augmentation(
    flip="horizontal_and_vertical", rotation=180, elastic=10, contrast=0.2, brightness=0.1
)
source, train, val, values = "shapes/cells", "train", "val[:4]", {}
if options.data:
    source, train, val = options.data, "all[:-4]", "all[-4:]"
    values = {"values": {0: 0, 255: 1}}  # in the files: class
images = keras_fcn.datasets.load(source, train, augment=augmentation, shuffle=True, **values)


def cut_tile(image, labels):
    """Mirror the borders of an image (H, W, 1), and cut a tile; its labels lack the margin."""
    image = tf.pad(image, [[margin, margin], [margin, margin], [0, 0]], "REFLECT")
    room = tf.shape(image)[:2] - options.tile + 1
    top = tf.random.uniform([], 0, room[0], tf.int32)
    left = tf.random.uniform([], 0, room[1], tf.int32)
    image = image[top : top + options.tile, left : left + options.tile]
    labels = labels[top : top + inner, left : left + inner]
    image = tf.ensure_shape(image, (options.tile, options.tile, 1))
    return image, tf.ensure_shape(labels, (inner, inner))


# %% [markdown]
# The weights make up for the rarer class, and are high where two cells come close (equation 2 of
# the paper); to `fit` they are sample weights. A single tile is a batch, so that it can be large,
# and the momentum of 0.99 averages over the tiles before.

# %%
whole = keras_fcn.datasets.load(source, train, **values)
label_maps = [labels for _, labels in whole.as_numpy_iterator()]
smallest, needed = min(min(labels.shape) for labels in label_maps), max(inner, margin + 1)
if smallest < needed:
    parser.error(f"this tile needs images of {needed} pixels or more, the smallest has {smallest}")
pixels = sum(np.bincount(labels.ravel(), minlength=2) for labels in label_maps)
tiles = images.repeat().map(cut_tile).batch(1)
tiles = add_border_weights(tiles, class_weights=pixels.sum() / (2 * pixels))

model.compile(
    optimizer=keras.optimizers.SGD(1e-3, momentum=0.99),
    loss=keras_fcn.losses.WeightedCrossentropy(ignore_class=255),
    jit_compile=False,  # on CPUs XLA compiles for long and is no faster
)
model.fit(
    tiles,
    epochs=options.epochs,
    steps_per_epoch=options.steps,
    shuffle=False,  # the training set is shuffled
    verbose=2,
)

# %% [markdown]
# `predict_image` mirrors the borders too, and gives maps of the size of the image. As in the
# challenge, scores are means over the slices, each at its best threshold.

# %%
thresholds = np.arange(0, 1.01, 0.1)
scores, rows = [], []  # scores: (slices, thresholds, 2)
for image, truth in keras_fcn.datasets.load(source, val, **values).as_numpy_iterator():
    probabilities = keras_fcn.predict_image(model, image)  # (H, W, 2)
    results = [
        keras_fcn.metrics.rand_information_scores(truth, probabilities[..., 1], threshold)
        for threshold in thresholds
    ]
    scores.append([(result["rand"], result["information"]) for result in results])
    panels = [np.repeat(image, 3, -1), np.repeat(255 * truth[..., None], 3, -1)]
    rows.append(np.hstack([*panels, probability_map(probabilities, label=1)]))
rand, information = np.mean(scores, 0).max(0)
print(f"{len(scores)} slices: Rand score {rand:.4f}, information score {information:.4f}")

# %%
picture = Image.fromarray(np.vstack(rows[:2]).astype("uint8"))
scale = max(1, 768 // picture.width)  # small images are enlarged
picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, picture)
print("Image, truth and probability of cell:", options.output)
