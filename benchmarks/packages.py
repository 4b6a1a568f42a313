"""Print a table of what this package and its peers do with networks of the two papers.

    pip install . segmentation-models keras-segmentation keras-unet-collection \
        segmentation-models-pytorch
    python benchmarks/packages.py

Each cell is tried, with random weights, and an error's name stands in it. "none" is for a network
that the package doesn't have.
"""

import os
from importlib import metadata

os.environ.setdefault("SM_FRAMEWORK", "tf.keras")  # of segmentation_models

import numpy as np
import segmentation_models_pytorch  # before TensorFlow, after which triton's import is a segfault
import torch

PACKAGES = (
    "keras_fcn",
    "segmentation-models",
    "keras-segmentation",
    "keras-unet-collection",
    "segmentation-models-pytorch",
)


def keras_fcn_unet(height, width, padding="same"):
    import keras_fcn

    model = keras_fcn.UNet(filters=(8, 16, 32, 64, 128), padding=padding)
    return model(np.zeros((1, height, width, 3), "float32")).shape[1:3]


def keras_fcn_fcn8s(height, width):
    import keras_fcn

    return keras_fcn.FCN8s(fc_filters=64)(np.zeros((1, height, width, 3), "float32")).shape[1:3]


def segmentation_models_unet(height, width):
    import segmentation_models

    model = segmentation_models.Unet("vgg16", encoder_weights=None)
    return model(np.zeros((1, height, width, 3), "float32")).shape[1:3]


def keras_segmentation_unet(height, width):
    from keras_segmentation.models.unet import unet

    model = unet(n_classes=2, input_height=height, input_width=width)
    return model.output_height, model.output_width


def keras_segmentation_fcn8s(height, width):
    from keras_segmentation.models.fcn import fcn_8

    model = fcn_8(n_classes=2, input_height=height, input_width=width)
    return model.output_height, model.output_width


def keras_unet_collection_unet(height, width):
    from keras_unet_collection import models

    model = models.unet_2d((None, None, 3), [8, 16, 32, 64], n_labels=2)
    return model(np.zeros((1, height, width, 3), "float32")).shape[1:3]


def segmentation_models_pytorch_unet(height, width):
    model = segmentation_models_pytorch.Unet("vgg16", encoder_weights=None).eval()
    with torch.inference_mode():
        return tuple(model(torch.zeros(1, 3, height, width)).shape[2:])


def attempt(function, *arguments, **options):
    """Return the size of what comes out as text, or the name of the error."""
    if function is None:
        return "none"
    try:
        return "{}x{}".format(*function(*arguments, **options))
    except Exception as error:
        return type(error).__name__


def rows():
    """Yield the name of a row, and the attempt of each package."""
    unets = [globals()[f"{name.replace('-', '_')}_unet"] for name in PACKAGES]
    fcns = [globals().get(f"{name.replace('-', '_')}_fcn8s") for name in PACKAGES]
    for height, width in ((96, 64), (101, 75), (1, 1)):
        yield f"U-Net, {height}x{width}", [attempt(unet, height, width) for unet in unets]
    for height, width in ((96, 64), (101, 75), (1, 1)):
        yield f"FCN-8s, {height}x{width}", [attempt(fcn, height, width) for fcn in fcns]
    valid = [attempt(keras_fcn_unet, 572, 572, padding="valid")]
    yield "U-Net without padding, as in the paper, 572x572", valid + ["none"] * (len(PACKAGES) - 1)


def main():
    versions = [f"{package} {metadata.version(package)}" for package in PACKAGES]
    print("| the map that comes out |", " | ".join(versions), "|")
    print("| --- " * (len(PACKAGES) + 1) + "|")
    for name, cells in rows():
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
