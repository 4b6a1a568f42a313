"""Augmented 256 x 256 crops per second of one core.

    python benchmarks/input_pipeline.py [--seconds 5]

The scenes are generated as PNG files of CamVid's size (480 x 360 RGB) in a temporary
folder. Counted is processor time, so that other programs do not disturb. Training U-Net
with 32 filters takes about 10 such crops a second on 2 cores.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from PIL import Image

from keras_fcn import datasets
from keras_fcn.datasets import Augmentation

CROP = 256
IMAGES = 24
NEEDED = 10  # crops per second
PIPELINES = {
    "decode and crop": {},
    "flip": {"augment": Augmentation()},
    "flip, scale, rotation": {"augment": Augmentation(scale=0.25, rotation=10)},
    "all, as for street scenes": {
        "augment": Augmentation(scale=0.25, rotation=10, contrast=0.2, brightness=0.1)
    },
    "all and elastic, as for cells": {
        "augment": Augmentation(
            "horizontal_and_vertical", 180, 0.25, contrast=0.2, brightness=0.1, elastic=10
        )
    },
    "the same, decoded images cached": {
        "augment": Augmentation(
            "horizontal_and_vertical", 180, 0.25, contrast=0.2, brightness=0.1, elastic=10
        ),
        "cache": True,
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5, help="of processor time, per pipeline")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder))
        print(f"{'crops per core second':40}{NEEDED:8}  needed")
        for name, arguments in PIPELINES.items():
            dataset = datasets.load(
                folder, "all", batch_size=4, crop_size=CROP, shuffle=True, seed=0, **arguments
            )
            print(f"{name:40}{measure(dataset, options.seconds):8.1f}")


def write_scenes(folder):
    """Write noisy scenes, which PNG compresses as badly as photographs, and their label maps."""
    from keras_fcn.datasets.shapes import draw_street

    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for number in range(IMAGES):
        image, labels = draw_street(np.random.default_rng(number), size=480)
        Image.fromarray(image[60:420]).save(folder / "images" / f"{number}.png")
        Image.fromarray(np.where(labels == 255, 5, labels)[60:420].astype("uint8")).save(
            folder / "masks" / f"{number}.png"
        )


def measure(dataset, seconds):
    """Return images per second of processor time, after a pass that traces and fills the cache."""
    for _ in dataset:
        pass
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        for images, _ in dataset:
            count += len(images)
    return count / (time.process_time() - start)


if __name__ == "__main__":
    main()
