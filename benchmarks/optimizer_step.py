"""The time of a training step with AdamW and with Muon, on this machine.

    python benchmarks/optimizer_step.py

Steps on 4 crops of 256x256 of noise, in mixed bfloat16, of the networks of weights/RECIPES.md. The
two optimizers take turns, so that other work on the machine slows both; the medians are printed.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from keras_fcn import FCN32s, UNet
from keras_fcn.optimizers import Muon

NETWORKS = {
    "U-Net, 32 to 512 filters": lambda: UNet(
        num_classes=11, filters=(32, 64, 128, 256, 512), batch_norm=True
    ),
    "FCN-32s, 256 units in fc6 and fc7": lambda: FCN32s(
        num_classes=11, fc_filters=256, batch_norm=True
    ),
}
OPTIMIZERS = {"AdamW": keras.optimizers.AdamW, "Muon": Muon}


def time_step(model, images, labels):
    begin = time.perf_counter()
    model.train_on_batch(images, labels)
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    keras.config.set_dtype_policy("mixed_bfloat16")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 256, 256, 3)).astype("float32")
    labels = rng.integers(0, 11, (4, 256, 256))
    for name, build in NETWORKS.items():
        models = {optimizer: build() for optimizer in OPTIMIZERS}
        seconds = {optimizer: [] for optimizer in OPTIMIZERS}
        for optimizer, model in models.items():
            model.compile(OPTIMIZERS[optimizer](1e-3), "sparse_categorical_crossentropy")
            model.train_on_batch(images, labels)  # traced, and not timed
        for _ in range(options.steps):
            for optimizer, model in models.items():
                seconds[optimizer].append(time_step(model, images, labels))
        adamw, muon = (statistics.median(seconds[optimizer]) for optimizer in OPTIMIZERS)
        print(f"{name}: AdamW {adamw:.2f} s, Muon {muon:.2f} s, {muon / adamw:.2f} times as long")


if __name__ == "__main__":
    main()
