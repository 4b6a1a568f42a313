"""The time of a training step with AdamW, with Muon, and with Keras's batch normalisation.

    python benchmarks/optimizer_step.py

Steps on 4 crops of 256x256 of noise, in mixed bfloat16, of the networks of weights/RECIPES.md. The
three take turns, so that other work on the machine slows them alike; the medians are printed.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from keras_fcn import FCN32s, UNet
from keras_fcn.layers import BatchNormalization
from keras_fcn.optimizers import Muon

NETWORKS = {
    "U-Net, 32 to 512 filters": lambda: UNet(
        num_classes=11, filters=(32, 64, 128, 256, 512), batch_norm=True
    ),
    "FCN-32s, 256 units in fc6 and fc7": lambda: FCN32s(
        num_classes=11, fc_filters=256, batch_norm=True
    ),
}


def with_keras_layers(model):
    """Return the network with Keras's batch normalisation in the place of the package's."""

    def change(layer):
        kind = type(layer)
        if isinstance(layer, BatchNormalization):
            kind = keras.layers.BatchNormalization
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=change)


VARIANTS = {
    "AdamW": lambda build: compiled(build(), keras.optimizers.AdamW),
    "Muon": lambda build: compiled(build(), Muon),
    "Muon, Keras's layer": lambda build: compiled(with_keras_layers(build()), Muon),
}


def compiled(model, optimizer):
    model.compile(optimizer(1e-3), "sparse_categorical_crossentropy")
    return model


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
        models = {variant: make(build) for variant, make in VARIANTS.items()}
        seconds = {variant: [] for variant in VARIANTS}
        for model in models.values():
            model.train_on_batch(images, labels)  # traced, and not timed
        for _ in range(options.steps):
            for variant, model in models.items():
                seconds[variant].append(time_step(model, images, labels))
        adamw = statistics.median(seconds["AdamW"])
        for variant, times in seconds.items():
            median = statistics.median(times)
            print(f"{name}, {variant}: {median:.2f} s, {median / adamw:.2f} times AdamW's")


if __name__ == "__main__":
    main()
