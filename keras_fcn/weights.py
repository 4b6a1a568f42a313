"""Weight files: read into networks, halved, and known again."""

import io
import os
import re
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_fcn.caffe import load_pascal_voc
from keras_fcn.cards import check_card, find_card, pretrained, verified_file
from keras_fcn.vgg16 import is_vgg16_file, load_vgg16

# What an FCN has beyond the coarser one from which its training goes on.
REFINEMENT = {"upscore2", "score_pool4", "upscore16", "upscore_pool4", "score_pool3", "upscore8"}


def load_weights(model, factory, arguments):
    """Load what a factory's `weights` argument names: nothing, a catalogue name or a file.

    Args:
        model: the model just built; changed in place.
        factory: name of the factory, such as `"UNet"`.
        arguments: dict of all its arguments.

    Raises:
        ValueError: for an unknown name, a card that does not fit the
            arguments, or a file of another architecture.
        FileNotFoundError: for a missing file.
        OSError: when `"pascal_voc"` can't be downloaded.
    """
    weights = arguments["weights"]
    if weights is None:
        return
    if os.sep in str(weights) or Path(str(weights)).suffix in (".h5", ".keras"):
        load_file(model, weights)
    elif weights == "imagenet":
        load_vgg16(model)
    elif weights == "pascal_voc":
        load_pascal_voc(model)
    else:
        card = find_card(weights)
        check_card(card, factory, arguments)
        load_file(model, verified_file(card))


def load_file(model, path):
    """Load a `.weights.h5` or `.keras` file of the same architecture into the model.

    The `.keras` file may also be that of a coarser FCN. The layers that both have then
    take its weights. A file of `keras.applications.VGG16` goes into the trunk, as by
    `load_vgg16`.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is no weights file, or whose arrays differ from
            the model's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`weights` should be None, 'imagenet', one of {sorted(pretrained())}, or the path of "
            f"a weights file. Received: {str(path)!r}, and there is no such file."
        )
    received = _shapes_in(path)
    if not zipfile.is_zipfile(path) and is_vgg16_file(path):
        load_vgg16(model, path)
        return
    expected = Counter(tuple(weight.shape) for weight in model.weights)
    if received != expected and zipfile.is_zipfile(path) and _go_on_from(path, model):
        return
    try:
        if received != expected:
            raise ValueError(
                f"{(received - expected).total()} of its {received.total()} arrays are not in the "
                f"model, {(expected - received).total()} of the model's {expected.total()} not in "
                "the file."
            )
        model.load_weights(path)
    except ValueError as error:
        raise ValueError(
            f"The weights file should come from a model built with the same arguments as "
            f"{model.name!r}. Received: {str(path)!r}, which does not fit: {error}"
        ) from error


def _go_on_from(path, model):
    """Take the weights of the coarser FCN in a `.keras` file; return False if it is none."""
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    if not REFINEMENT & set(ours):
        return False
    coarser = keras.saving.load_model(path, compile=False)
    theirs = {layer.name: layer.get_weights() for layer in coarser.layers if layer.weights}
    common = [name for name in ours if name in theirs]
    if not set(ours) - set(common) <= REFINEMENT or any(
        [w.shape for w in theirs[name]] != [tuple(w.shape) for w in ours[name].weights]
        for name in common
    ):
        return False
    for name in common:
        ours[name].set_weights(theirs[name])
    return True


def _shapes_in(path):
    """Count the shapes of the layers' arrays in a `.weights.h5` or `.keras` file."""
    shapes = Counter()

    def count(name, item):
        if name.startswith("layers/") and re.search(r"/vars/\d+$", name):
            shapes[item.shape] += 1

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                path = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(path) as file:
            file.visititems(count)
    except (OSError, KeyError) as error:
        raise ValueError(
            "`weights` should be a file written by `model.save_weights` or `model.save`. "
            f"Received: {str(path)!r}, which can't be read: {error}"
        ) from error
    return shapes


def save_half_precision(model, path):
    """Save the kernels as float16 in a `.weights.h5` file, which plain Keras loads.

    Biases and the vectors of batch normalisation stay float32: they are few, and a
    variance can be larger than float16 holds, 65504. The file is written beside `path`
    and then renamed, so `path` never holds half of it.

    Args:
        model: Keras model.
        path: file to write; its name ends in `.weights.h5`.
    """
    path = Path(path)
    full = path.with_name(f".full-{path.name}")
    half = path.with_name(f".half-{path.name}")
    model.save_weights(full)
    with h5py.File(full) as source, h5py.File(half, "w") as target:

        def copy(name, item):
            if name.startswith("optimizer"):  # of a compiled model
                return
            if isinstance(item, h5py.Dataset):
                many = {"dtype": "float16", "compression": "gzip"} if item.ndim > 1 else {}
                new = target.create_dataset(name, data=item[()], **many)
            else:
                new = target.require_group(name)
            new.attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    full.unlink()
    half.replace(path)


def fingerprint(model):
    """Return what a model predicts for a generated image, by which its weights are known again.

    Args:
        model: Keras model on pixels in [0, 255].

    Returns:
        List of lists of lists `(2, 3, num_classes)`: the predictions at six places of
        an image of 64x96 pixels, rounded to 4 decimals.
    """
    rows, columns, channels = np.mgrid[:64, :96, : model.input_shape[-1]]
    image = 127.5 * (1 + np.sin(rows / (3 + channels)) * np.cos(columns / (5 + 2 * channels)))
    predictions = model(image[None].astype("float32"), training=False)
    places = keras.ops.convert_to_numpy(predictions)[0, 16::32, 16::32]
    return places.round(4).tolist()
