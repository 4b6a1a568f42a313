"""Weight files: read into networks, halved, and known again."""

import contextlib
import os
import re
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_fcn.archives import (
    check_pieces,
    claimed_bytes,
    is_archive,
    open_weights,
    read_config,
    shapes_in,
)
from keras_fcn.atomic import replacing, temporary_folder
from keras_fcn.caffe import load_pascal_voc
from keras_fcn.cards import check_card, classes_on, find_card, pretrained, verified_file
from keras_fcn.classes import Classes
from keras_fcn.datasets.catalogue import SOURCES, VOC_CLASSES
from keras_fcn.label_maps import count_classes
from keras_fcn.private import without_numbers
from keras_fcn.remedies import spell
from keras_fcn.vgg16 import is_vgg16_file, load_vgg16

# What an FCN has beyond the coarser one from which its training goes on.
REFINEMENT = {"upscore2", "score_pool4", "upscore16", "upscore_pool4", "score_pool3", "upscore8"}

# Attributes of a file in eight bits, and of each kernel in it.
BITS, SCALE = "bits", "scale"

LONGEST_REASON = 300  # characters of an error that are told on


def load_weights(model: keras.Model, factory: str, arguments: dict) -> None:
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
        _keep_classes(model, classes_with(weights))
    elif weights == "imagenet":
        load_vgg16(model)
    elif weights == "pascal_voc":
        load_pascal_voc(model)
        _keep_classes(model, classes_with(weights))
    else:
        card = find_card(weights)
        check_card(card, factory, arguments)
        load_file(model, verified_file(card), verified=True)
        _keep_classes(model, classes_with(weights))


def classes_with(weights: str | os.PathLike) -> Classes | None:
    """Return the classes that weights bring, which are there.

    Args:
        weights: a name of `keras_fcn.pretrained()`, "pascal_voc", or a file.

    Returns:
        `keras_fcn.Classes`; None where a file does not say them.
    """
    if weights in pretrained():
        return classes_on(find_card(weights))
    if weights == "pascal_voc":
        name = "voc_segmentation"
        return Classes(VOC_CLASSES, ignore=SOURCES[name].ignore, data=name)
    if not is_archive(weights):
        return None
    config = read_config(weights)
    try:
        return _classes_in(config)
    except (LookupError, TypeError, AttributeError) as error:
        raise _foreign(weights, f"its configuration is that of no model: {error!r}") from error


def _keep_classes(model, classes):
    """Tell a network what the classes of its weights are, if they are as many as its own."""
    if classes is not None and len(classes) == count_classes(model.output_shape[-1]):
        model.get_layer("predictions").classes = classes


def _classes_in(model):
    """Return the classes in the configuration of a model or of those within it, the last's."""
    for layer in reversed(model["config"].get("layers", ())):
        if layer["class_name"] == "Predictions":
            found = layer["config"].get("classes")
            return Classes.from_config(found) if found else None
        if found := _classes_in(layer):
            return found
    return None


def load_file(model: keras.Model, path: str | os.PathLike, verified: bool = False) -> None:
    """Load a `.weights.h5` or `.keras` file of the same architecture into the model.

    The `.keras` file may also be that of a coarser FCN. The layers that both have then
    take its weights. A file of `keras.applications.VGG16` goes into the trunk, as by
    `load_vgg16`.

    Args:
        model: Keras model; changed in place.
        path: of the file.
        verified: whether the file is known by its sha256: its pieces are not unpacked once
            more beforehand, to see that they hold what they claim.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is no weights file, or whose arrays differ from
            the model's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{spell('weights')} should be None, 'imagenet', one of {sorted(pretrained())}, or "
            f"the path of a weights file. Received: {str(path)!r}, and there is no such file."
        )
    received = _shapes_in(path)
    if not is_archive(path) and is_vgg16_file(path):
        load_vgg16(model, path)
        return
    expected = Counter(tuple(weight.shape) for weight in model.weights)
    if received != expected and is_archive(path) and _go_on_from(path, model):
        return
    try:
        if received != expected:
            raise ValueError(
                f"{(received - expected).total()} of its {received.total()} arrays are not in the "
                f"model, {(expected - received).total()} of the model's {expected.total()} not in "
                "the file."
            )
        with _unchanged_on_failure(model), _plain_file(path, verified) as plain:
            model.load_weights(plain)
            check_finite(model)
    except ValueError as error:
        raise ValueError(
            f"The weights file should come from a model built with the same arguments as "
            f"{model.name!r}. Received: {str(path)!r}, which does not fit: {error}"
        ) from error


def read_model(path: str | os.PathLike) -> keras.Model:
    """Read the model in a `.keras` file, and run nothing that is in it.

    Args:
        path: file written by `model.save`.

    Returns:
        `keras.Model`, not compiled.

    Raises:
        ValueError: for a file that is none, is damaged, claims to hold far more than it
            does, needs a `Lambda` or an unknown class, or holds NaN or infinite weights.
        FileNotFoundError: for a missing file.
    """
    _check_archive(path)
    try:
        _check_parameters(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        check_finite(model)
    except Exception as error:  # Keras and the layers raise whatever they do
        raise _foreign(path, _reason(error)) from error
    return model


def read_network(path: str | os.PathLike) -> keras.Model:
    """Return the network in a `.keras` file, whose weights have shapes only; as `read_model`."""
    _check_archive(path)
    try:
        return _without_numbers(path)
    except Exception as error:  # as above
        raise _foreign(path, _reason(error)) from error


def _without_numbers(path):
    # an optimizer would make its variables with numbers
    config = {key: part for key, part in read_config(path).items() if key != "compile_config"}
    with without_numbers():
        return keras.saving.deserialize_keras_object(config, safe_mode=True)


def _check_archive(path):
    """Raise unless a file is a `.keras` file, by what it is at first sight."""
    text = str(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no model file {text!r}.")
    if text.endswith(".h5"):
        raise ValueError(
            f"A weights file does not say which network it belongs to. Received: {text!r}. Save "
            "the whole model with `model.save('….keras')` and pass that."
        )
    if not Path(path).is_file() or not is_archive(path):
        kind = "a folder" if Path(path).is_dir() else "a file that is none"
        raise _foreign(
            path,
            f"that is {kind}. What was exported answers in its own runtime; here take the .keras "
            "file that it was made of.",
        )


def _foreign(path, reason):
    return ValueError(
        "A model should be a whole .keras file, written by `model.save`. Received: "
        f"{str(path)!r}, but {reason}"
    )


def _reason(error):
    """Say in a line what was wrong with a model's file."""
    text = " ".join(str(error).split())
    if "Lambda" in text or "lambda" in text:
        return (
            "it has a Lambda layer, which holds code, and code from a file is not run. Make a "
            "layer of it, registered with `keras.saving.register_keras_serializable`."
        )
    if missing := re.search(r"Could not locate (?:class|function) '([^']*)'", text):
        return (
            f"it has a {missing[1]!r}, which is not Keras's or keras_fcn's. Import the module "
            "that registers it, with `keras.saving.register_keras_serializable`, and load the "
            "model with `keras.saving.load_model`."
        )
    return text if len(text) < LONGEST_REASON else f"{text[:LONGEST_REASON]} …"


def _check_parameters(path):
    """Raise `ValueError` if the network is much larger than what its file holds of weights."""
    with open_weights(path) as file:
        held = sum(claimed_bytes(file).values())
        check_pieces(file)
    if read_config(path)["class_name"] not in ("Functional", "Sequential"):
        return  # a class of the user's, who knows how large it is
    parameters = _without_numbers(path).count_params()
    if parameters > held + 2**20:
        raise ValueError(
            f"it describes a network of {parameters:,} parameters and holds {held:,} bytes of them."
        )


def check_finite(model: keras.Model) -> None:
    """Raise `ValueError`, naming the layer, if a weight of a model is NaN or infinite."""
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if not np.isfinite(values.astype("float32")).all():
            raise ValueError(f"it holds NaN or infinite numbers, in {weight.path!r}.")


@contextlib.contextmanager
def _unchanged_on_failure(model):
    """Give the model its weights back when the block raises, as `ValueError`."""
    before = model.get_weights()
    try:
        yield
    except Exception as error:  # Keras raises what h5py does
        model.set_weights(before)
        raise ValueError(str(error)) from error


@contextlib.contextmanager
def _plain_file(path, verified):
    """Yield the path of a file as Keras reads it; one in eight bits is spread out for the time."""
    with open_weights(path) as file:
        if not verified:
            check_pieces(file)
        if BITS not in file.attrs:
            yield path
            return
        with temporary_folder() as folder:
            plain = folder / "plain.weights.h5"

            def store(target, name, array):
                return target.create_dataset(name, data=array * file[name].attrs.get(SCALE, 1))

            with h5py.File(plain, "w") as target:
                _copy(file, target, store)
            yield plain


def _go_on_from(path, model):
    """Take the weights of the coarser FCN in a `.keras` file; return False if it is none."""
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    if not REFINEMENT & set(ours):
        return False
    coarser = read_model(path)
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
    try:
        with open_weights(path) as file:
            return shapes_in(file)
    except ValueError as error:
        raise ValueError(
            f"{spell('weights')} should be a file written by `model.save_weights` or `model.save`. "
            f"Received: {str(path)!r}, but {error}. Fetch or save it again."
        ) from error


def save_half_precision(model: keras.Model, path: str | os.PathLike) -> None:
    """Save the kernels as float16 in a `.weights.h5` file, which plain Keras loads.

    Biases and the vectors of batch normalisation stay float32: they are few, and a
    variance can be larger than float16 holds, 65504. The file is written beside `path`
    and then renamed, so `path` never holds half of it.

    Args:
        model: Keras model.
        path: file to write; its name ends in `.weights.h5`.
    """

    def store(target, name, array):
        kind = "float16" if array.ndim > 1 else array.dtype
        return target.create_dataset(name, data=array.astype(kind), **_compression(array))

    _save_smaller(model, path, store)


def save_eight_bit(model: keras.Model, path: str | os.PathLike) -> None:
    """Save the kernels in eight bits a number, half the file of `save_half_precision`.

    A kernel `(height, width, a, b)` becomes int8, and a float32 scale for each channel of the
    one of its two last axes that loses less: no number changes by more than half a 127th of
    the largest of its channel. All else stays as it is. `weights=` of the networks reads the
    file; plain Keras does not.

    Args:
        model: Keras model.
        path: file to write; its name ends in `.weights.h5`.

    Example:

    >>> save_eight_bit(model, "small.weights.h5")  # doctest: +SKIP
    >>> UNet(weights="small.weights.h5")  # doctest: +SKIP
    """

    def store(target, name, array):
        if array.ndim != 4:
            return target.create_dataset(name, data=array)
        integers, scale = _quantize(array)
        new = target.create_dataset(name, data=integers, **_compression(array))
        new.attrs[SCALE] = scale
        target.attrs[BITS] = 8
        return new

    _save_smaller(model, path, store)


def _quantize(kernel):
    """Return a kernel as int8, and the float32 scale, of its shape or 1, that gives it back."""
    choices = []
    for axes in ((0, 1, 2), (0, 1, 3)):
        largest = abs(kernel).max(axes, keepdims=True)
        scale = np.where(largest == 0, 1, largest / 127).astype("float32")
        integers = np.rint(kernel / scale).clip(-127, 127).astype("int8")
        choices.append((float(((integers * scale - kernel) ** 2).sum()), integers, scale))
    _, integers, scale = min(choices, key=lambda choice: choice[0])
    return integers, scale


def _compression(array):
    return {"compression": "gzip", "compression_opts": 9} if array.ndim > 1 else {}


def _save_smaller(model, path, store):
    """Save the weights with each array as `store(file, name, array)` stores it."""
    with temporary_folder() as folder, replacing(path) as beside:
        full = folder / "full.weights.h5"
        model.save_weights(full)
        with h5py.File(full) as source, h5py.File(beside, "w", libver="latest") as target:
            _copy(source, target, store)


def _copy(source, target, store):
    """Copy the layers of a weights file, each array as `store(target, name, array)` stores it."""

    def copy(name, item):
        if name.startswith("optimizer"):  # of a compiled model
            return
        if isinstance(item, h5py.Dataset):
            new = store(target, name, item[()])
        else:
            new = target.require_group(name)
        new.attrs.update(item.attrs)

    source.visititems(copy)
    target.attrs.update(source.attrs)


def fingerprint(model: keras.Model) -> list:
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
