"""Models as files of other runtimes, each run there before it bears its name."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_fcn.arguments import check_choice
from keras_fcn.atomic import find_leftovers, remove_leftovers, replacing
from keras_fcn.catalogue import classes_of, file_of
from keras_fcn.exports.formats import Exported
from keras_fcn.exports.table import FORMATS, check_packages, open_export
from keras_fcn.inference.engines import first_line, for_inference, in_float32
from keras_fcn.inference.quantize import (
    Calibration,
    calibration_images,
    check_calibration,
    check_processor,
    check_quantized,
)
from keras_fcn.inference.tiles import takes_size, with_free_size
from keras_fcn.label_maps import ROUNDING
from keras_fcn.remedies import choose, given, remake, spell

__all__ = ["Exported", "export", "open_export"]

# What may differ at most, as a share of the range of the output, and where that share is
# below what float32 resolves.
TOLERANCE = 1e-3
RESOLUTION = 1e-6


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str,
    precision: str = "float32",
    calibration: str | Path | Calibration | Sequence | None = None,
) -> float:
    """Write a model as a file that runs without Keras, and run it there.

    The file takes what the model takes: any height, width and number of images, and raw
    pixels for a model with `include_preprocessing=True`. Class names, palette and void
    label are in the metadata of `"onnx"` and `"openvino"` files under the key "classes",
    for `"saved_model"` in `assets.extra/classes.json` in the folder, and for `"litert"` in
    `<path>.json`, as JSON. The file bears its name once its own runtime has given what
    Keras gives, on images of two sizes.

    Args:
        model: Keras model from one batch of images `(batch, height, width, channels)` to
            one batch of maps.
        path: file to write, ending in `.onnx`, `.xml` (OpenVINO, weights in a `.bin`
            beside it), `.tflite` (LiteRT) or `.zip` (BioImage Model Zoo); for
            `"saved_model"` the folder. It must not exist.
        format: `"saved_model"`, `"onnx"`, `"litert"`, `"openvino"` or `"bioimageio"`.
        precision: "float32", or "int8" for `"openvino"` and `"onnx"`: convolutions in integers
            of 8 bits, a quarter of the size.
        calibration: for "int8" at least 10 images such as the network is for, as in
            `keras_fcn.predict_image`.

    Returns:
        The largest difference between the outputs of Keras and of the file, a float; for
        "int8" on one of the images of `calibration`.

    Raises:
        ValueError: for another format or ending, a model of another kind, or outputs that
            differ by more than 0.001 of their range; then nothing is written. For "int8" for
            outputs that differ by more than 0.02 of it on average, or in 2 of 100 labels.
        FileExistsError: when `path`, or a file that belongs to it, exists.
        ImportError: when a package that the format needs is missing; it says which.

    Example:

    >>> from keras_fcn import UNet
    >>> difference = export(UNet(filters=(8, 16)), "unet.onnx", "onnx")  # doctest: +SKIP
    >>> difference < 1e-5  # doctest: +SKIP
    True
    """
    check_choice("format", format, tuple(FORMATS))
    path = Path(path)
    _check_path(path, format)
    _check_model(model)
    kind = FORMATS[format]
    check_packages(format, (*kind.converters, kind.runtime))
    batches = _calibrate(model, format, precision, calibration)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with in_float32(model), contextlib.ExitStack() as undo:
        with replacing(path) as beside:
            free = _free_size(model)
            examples = [(images, call(free, images)) for images in example_images(free)]
            _warn_of_scores(model, [expected for _, expected in examples])
            with _translating(model, format):
                kind.write(for_inference(free), beside, classes_of(model))
                exported = kind.open(beside)
            difference = _compare(exported, examples, format)
            if batches and kind.quantize:
                kind.quantize(beside, batches)
                difference = check_quantized(free, kind.open(beside).predict, batches[0])
            for companion in set(beside.parent.iterdir()) - {beside}:
                undo.callback(companion.rename(path.with_name(companion.name)).unlink)
        undo.pop_all()  # the last file bears its name
    return difference


def _calibrate(model, format, precision, calibration):
    """Return the images to calibrate on, batches of one; None for float32."""
    check_choice("precision", precision, ("float32", "int8"))
    check_calibration(precision, calibration)
    if precision == "float32":
        return None
    if FORMATS[format].quantize is None:
        name = choose('`precision="int8"`', "`--int8`")
        raise ValueError(
            f"{name} is for {spell('format', 'openvino')} and {spell('format', 'onnx')}. Received: "
            f"{given('format', format)}. Pass one of them or leave out {name}."
        )
    if format == "openvino":
        check_packages("int8", ("nncf",))
    check_processor()
    return calibration_images(model, calibration)


@contextlib.contextmanager
def _translating(model, format):
    """Turn the errors of converters, which are of many types, into `ValueError`."""
    try:
        yield
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"The format {format!r} should know the layers of the model. Received: {model.name!r}, "
            f"which it does not take: {first_line(error)} Nothing is written; export to another "
            "format."
        ) from error


def _check_path(path, format):
    suffix = FORMATS[format].suffix
    if path.suffix != suffix and suffix:
        raise ValueError(
            f"A file of the format {format!r} should end in '{suffix}'. Received: '{path}'. Pass "
            f"'{path.with_suffix(suffix)}'."
        )
    companions = FORMATS[format].companions(path)
    for companion in companions:
        if _is_left(companion, path):
            companion.unlink(missing_ok=True)
    for taken in (path, *companions):
        if taken.exists() or taken.is_symlink():
            raise FileExistsError(
                f"An export does not replace what exists. Received: '{path}', and there is "
                f"'{taken}'. Remove it, or choose another name."
            )


def _is_left(companion, path):
    """Whether a killed export has given a companion its name, and not yet the file itself."""
    left = [folder for folder in find_leftovers(path.parent) if (folder / path.name).exists()]
    return not path.exists() and any(not (folder / companion.name).exists() for folder in left)


def _check_model(model):
    shapes = []
    if isinstance(model, keras.Model) and model.built:
        shapes = [tensor.shape for tensor in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 4]:
        raise ValueError(
            "The model should take one batch of images (batch, height, width, channels) and give "
            f"one batch of maps. Received: {getattr(model, 'name', model)!r} with the shapes "
            f"{shapes} of inputs and outputs. A classifier becomes such a model by "
            "`keras_fcn.fully_convolutional`."
        )


def _warn_of_scores(model, maps):
    """Warn of one channel that is no probability, for who reads the file takes it for one."""
    low, high = min(scores.min() for scores in maps), max(scores.max() for scores in maps)
    if model.outputs[0].shape[-1] == 1 and (low < -ROUNDING or high > 1 + ROUNDING):
        make = 'keras.Sequential([model, keras.layers.Activation("sigmoid")])'
        warnings.warn(
            "The one channel of a file should be the probability of class 1, in [0, 1]. Received: "
            f"{model.name!r}, whose scores of noise are from {low:.3g} to {high:.3g}, as without "
            f"a sigmoid. Export {remake(make, file_of(model), 'sigmoid')}; or take the scores as "
            "they are, whose label is that they are above 0.",
            stacklevel=3,
        )


def _free_size(model):
    """Return the model, or one with the same layers for float32 images of any size."""
    height, width, _ = model.input_shape[1:]
    if height is None and width is None and model.inputs[0].dtype == "float32":
        return model
    try:
        return with_free_size(model)
    except Exception as error:  # a layer may raise anything for a size that it was not made for
        raise ValueError(
            "The model should be one for images of any size. Received: a model for images of "
            f"{height}x{width}, with a layer that needs that size: {error}. "
            "`keras_fcn.fully_convolutional` makes a model for any size of a classifier."
        ) from error


def example_images(model):
    """Return batches of noise (batch, height, width, channels) of two sizes that fit.

    One image of each batch is in [0, 1], the other in [0, 255], for models of both.
    """
    rng = np.random.default_rng(0)
    channels = model.input_shape[-1]
    ranges = np.reshape([1, 255], (2, 1, 1, 1))
    return [(rng.random((2, *size, channels)) * ranges).astype("float32") for size in _sizes(model)]


def _sizes(model):
    """Return two sizes that leave an output, no multiples of a stride if the model takes such."""
    for sides in ((37, 65, 66, 35), (32, 64, 64, 32), (48, 80, 80, 48)):
        for scale in range(1, 17):
            height, width, *other = (scale * side for side in sides)
            sizes = [(height, width), tuple(other)]
            if all(takes_size(model, size) for size in sizes):
                return sizes
    raise ValueError(
        f"The model should give an output for images of {sizes[0]} pixels. Received: "
        f"{model.name!r}, which gives none."
    )


def call(model, images):
    """Return the model's output for a batch of images, float32."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def _compare(exported, examples, format):
    """Return the largest difference, or raise when it is more than rounding explains."""
    largest = 0.0
    for images, expected in examples:
        received = exported.predict(images)
        if received.shape != expected.shape:
            raise ValueError(
                f"The {format!r} file should give what Keras gives. Received: the shape "
                f"{received.shape} instead of {expected.shape} for images of {images.shape}. "
                "Nothing is written; export to another format."
            )
        difference = float(abs(received - expected).max())
        if not difference <= max(RESOLUTION, TOLERANCE * np.ptp(expected)):
            raise ValueError(
                f"The {format!r} file should give what Keras gives. Received: outputs that differ "
                f"by up to {difference:.2g}, and Keras's lie in [{expected.min():.2g}, "
                f"{expected.max():.2g}]. The runtime computes a layer otherwise. Nothing is "
                "written; export to another format."
            )
        largest = max(largest, difference)
    return largest
