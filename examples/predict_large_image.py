# %% [markdown]
"""
Predict an image too large for memory, in tiles, and compare with the prediction in one piece.

    python examples/predict_large_image.py

The large image is a photograph laid out with its mirror images until it has the size asked for, so
that what is in it stays as large as a network has seen it. Each tile is made from as much of the
image as its pixels see, the receptive field, so the tiles are exactly the prediction in one piece.
Of the tiles only the labels are kept, not the probabilities of all classes.
It needs scikit-learn for its photograph, and downloads nothing.
"""

# %%
import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import keras_fcn
from keras_fcn.visualize import error_map, overlay, write_png

parser = argparse.ArgumentParser(description="Predict a large image in tiles, and compare.")
parser.add_argument("--height", type=int, default=1708)
parser.add_argument("--width", type=int, default=2560)
parser.add_argument("--tile-size", type=int, default=512, help="side of the tiles, pixels")
parser.add_argument("--output", type=Path, default=Path("predictions/large_image.png"))
options = parser.parse_args()

# %%
photo = load_sample_image("china.jpg")  # (427, 640, 3)
missing = [max(0, options.height - photo.shape[0]), max(0, options.width - photo.shape[1])]
image = np.pad(photo, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")
image = image[: options.height, : options.width]
print(f"An image of {image.shape[1]}x{image.shape[0]} pixels")

model = keras_fcn.from_pretrained("unet_camvid")
field = keras_fcn.receptive_field(model)
print(f"A pixel of the prediction sees {field.size[1]}x{field.size[0]} pixels of the image")
card = keras_fcn.pretrained()["unet_camvid"]


# %% [markdown]
# The peak of a process only ever rises, so the tiles come first, after one small image for what
# TensorFlow itself takes. In one piece, all layers of the network hold a map of the whole image.


# %%
def peak():
    """Return the most memory that this process has held, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


keras_fcn.predict_image(model, image[:64, :64])
start = peak()
label_maps = {}
for name, tile_size in ("tiles", options.tile_size), ("whole", None):
    before = time.perf_counter()
    label_maps[name] = keras_fcn.predict_image(model, image, tile_size=tile_size, output="labels")
    seconds = time.perf_counter() - before
    print(f"{name}: {seconds:.1f} s, at most {peak() - start:.0f} MiB more than at the start")

# %%
same = (label_maps["tiles"] == label_maps["whole"]).mean()
print(f"The same class at {same:.4%} of the pixels")

# %% [markdown]
# Above, the prediction in tiles; below, in red, where the prediction in one piece is another class.

# %%
step = max(1, image.shape[1] // 1024)  # every so many pixels are drawn
image, tiles, whole = (a[::step, ::step] for a in (image, *label_maps.values()))
drawn = overlay(image, tiles, card["palette"], card["classes"])
errors = error_map(whole, tiles)
picture = Image.new("RGB", (drawn.width, drawn.height + errors.height), "white")
picture.paste(drawn, (0, 0))
picture.paste(errors, (0, drawn.height))
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, picture)
print("Overlay and differences:", options.output)
