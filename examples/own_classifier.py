# %% [markdown]
"""A classifier of one's own, converted and slid over a photograph.

    python examples/own_classifier.py

Reads downward: draws patches of pixels, trains a small network to tell what is on them, converts
it, and finds the same things in a picture that is larger than any patch. It takes half a minute,
downloads nothing, and needs scikit-learn for its photograph.
"""

# %%
import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

import keras_fcn
from keras_fcn.classes import Classes
from keras_fcn.visualize import voc_palette, write_png

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--output", type=Path, default=Path("predictions/own_classifier.png"))
options = parser.parse_args()
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

CLASSES = ("nothing", "disc", "cross")
SIDE = 32  # of a patch, pixels
photo = load_sample_image("china.jpg")  # (427, 640, 3)

# %% [markdown]
"""Patches of the photograph, on each nothing, a disc or a cross of any colour."""


# %%
def draw_shape(picture, shape, center, radius):
    """Draw a disc or a cross into a picture, in a random colour; or nothing."""
    draw, color = ImageDraw.Draw(picture), tuple(rng.integers(0, 256, 3).tolist())
    (x, y), r = center, radius
    if shape == "disc":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif shape == "cross":
        draw.line((x - r, y - r, x + r, y + r), fill=color, width=5)
        draw.line((x - r, y + r, x + r, y - r), fill=color, width=5)


def draw_patch(label):
    """Return a patch (SIDE, SIDE, 3) of the photograph with a shape near its middle."""
    top, left = rng.integers(0, np.subtract(photo.shape[:2], SIDE))
    patch = Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
    draw_shape(patch, CLASSES[label], rng.integers(12, 20, 2).tolist(), int(rng.integers(8, 12)))
    return np.asarray(patch)


labels = rng.integers(0, len(CLASSES), 1500)
patches = np.stack([draw_patch(label) for label in labels])

# %% [markdown]
"""A classifier as in any tutorial: augmentation, convolutions without padding, dense layers.
It ends in `Predictions`, a softmax that knows what the classes are."""

# %%
classes = Classes(CLASSES)
classifier = keras.Sequential(
    [
        keras.Input((SIDE, SIDE, 3)),
        layers.RandomFlip(),
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(64, activation="relu", name="features"),
        layers.Dense(len(CLASSES), name="scores"),
        keras_fcn.layers.Predictions("softmax", classes=classes, name="predictions"),
    ],
    name="shapes",
)
classifier.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = classifier.fit(
    patches, labels, validation_split=0.2, epochs=options.epochs, batch_size=32, verbose=2
)
print(f"Accuracy on patches kept back: {history.history['val_accuracy'][-1]:.1%}")

# %% [markdown]
"""The same network without a fixed size: a dense layer on a map is a convolution."""

# %%
model = keras_fcn.fully_convolutional(classifier)
print(keras_fcn.compare(classifier))
print(f"It takes images of any size, in windows of {model.window}, {model.stride} pixels apart.")

# %% [markdown]
"""A picture with shapes in places that the network does not know, and what it finds there."""

# %%
picture = Image.fromarray(photo)
truth = [
    (CLASSES[1 + (i + j) % 2], (80 + 150 * i, 90 + 130 * j)) for i in range(4) for j in range(3)
]
for shape, center in truth:
    draw_shape(picture, shape, center, 10)
scores = keras_fcn.predict_image(model, np.asarray(picture))  # (rows, columns, 3)
rows, columns, _ = scores.shape
print(f"{photo.shape[0]}x{photo.shape[1]} pixels give {rows}x{columns} predictions")

# Each prediction is drawn where its window has its middle, as the square of a stride.
(height, width), (down, across) = model.window, model.stride
squares = Image.fromarray(voc_palette(len(CLASSES))[scores.argmax(-1)])
squares = squares.resize((columns * across, rows * down), Image.NEAREST)
shown = Image.fromarray((255 * (scores.argmax(-1) > 0) * scores.max(-1)).astype("uint8"))
shown = shown.resize(squares.size, Image.NEAREST).point(lambda v: v * 3 // 4)
corner = ((width - across) // 2, (height - down) // 2)
picture.paste(squares, corner, shown)

found = 0
for shape, (x, y) in truth:
    row, column = (y - height // 2) // down, (x - width // 2) // across
    found += CLASSES[scores[row, column].argmax()] == shape
print(f"{found} of {len(truth)} shapes are told right where they are")
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, picture)
print(f"Red: discs, green: crosses. {options.output}")
