"""How far an image in tiles is from the whole, for random crops of photographs.

    python tools/compare_tiles.py [--weights unet_camvid] [--engine openvino] [--crops 8]

The photographs come with scikit-learn. Height, width and tile size of each crop are drawn, and
the largest difference of a probability is printed, and how many pixels got another label.
"""

import argparse

import numpy as np
from sklearn.datasets import load_sample_image

import keras_fcn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--weights", default="unet_camvid")
parser.add_argument("--engine", default="keras")
parser.add_argument("--crops", type=int, default=8)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

rng = np.random.default_rng(options.seed)
photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
model = keras_fcn.from_pretrained(options.weights)
differences, changed, pixels = [], 0, 0
for _ in range(options.crops):
    photograph = photographs[rng.integers(len(photographs))]
    sides = photograph.shape[:2]
    height, width = rng.integers(np.floor_divide(sides, 2), sides, endpoint=True)
    top, left = rng.integers(np.subtract(sides, (height, width)), endpoint=True)
    image = photograph[top : top + height, left : left + width]
    tile_size = int(rng.integers(128, 256, endpoint=True))
    whole = keras_fcn.predict_image(model, image, engine=options.engine)
    tiled = keras_fcn.predict_image(model, image, engine=options.engine, tile_size=tile_size)
    differences.append(np.abs(whole - tiled).max())
    changed += np.count_nonzero(whole.argmax(-1) != tiled.argmax(-1))
    pixels += height * width
print(
    f"{options.weights}, {options.engine}, {options.crops} crops: probabilities differ by "
    f"{np.max(differences):.1e} at most, in half of the crops by {np.median(differences):.1e} or "
    f"more; {changed} of {pixels:,} pixels got another label"
)
