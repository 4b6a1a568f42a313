"""Images and models as `predict_image` takes them: checked, and never mended in silence."""

import math
import warnings

import keras
import numpy as np

from keras_fcn.catalogue import file_of
from keras_fcn.layers import SizeCheck, VGGPreprocessing
from keras_fcn.remedies import choose, remake

# Rows of an image are looked through in blocks of about so many numbers, for files larger
# than memory.
BLOCK = 2**24
DEEP = 2e-3  # a scale below it is made for pixels beyond [0, 255]
# The range of an image, as a multiple of the deviation for which the model is made.
NARROW, WIDE = 0.05, 60
# How far an interpolation may overshoot the range [0, 255].
OVERSHOOT = 128


def check_model(model: keras.Model) -> None:
    """Raise unless a model makes one map of one image.

    Raises:
        ValueError: for several inputs or outputs, or others than images and maps.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            "`model` should be a built Keras model on images. Received: "
            f"{type(model).__name__} {getattr(model, 'name', model)!r}. Build it from "
            "`keras.Input((None, None, channels))`."
        )
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    if len(shapes) != 2 or any(len(shape) != 4 for shape in shapes):
        count = len(inputs)
        raise ValueError(
            "A model to predict with should make one map (batch, rows, columns, classes) of one "
            f"image (batch, height, width, channels). Received: {model.name!r}, from "
            f"{shapes[:count]} to {shapes[count:]}. Take one output by "
            "`keras.Model(model.input, model.outputs[0])`; a classifier becomes such a model by "
            "`keras_fcn.fully_convolutional(model)`."
        )


class Sliced:
    """An image that is read a part at a time, of what NumPy would read as a whole.

    Args:
        array: what has a shape, a NumPy dtype and slices, as an array of Zarr or of an HDF5
            file, `(height, width)` or `(height, width, channels)`.
    """

    def __init__(self, array):
        self.array = array
        self.dtype = array.dtype
        self.shape = tuple(array.shape) + (1,) * (len(array.shape) == 2)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part):
        pixels = np.asarray(self.array[part])
        return pixels[..., None] if len(self.array.shape) == 2 else pixels

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype)


def check_image(image: np.ndarray, model: keras.Model) -> np.ndarray:
    """Return an image as an array `(height, width, channels)`, with its numbers as they are.

    What is no NumPy array but has its shape, dtype and slices becomes `Sliced`.

    Raises:
        ValueError: when the image has other channels than the model takes, numbers that
            are none, or a range that the model's preprocessing is not made for.
    """
    if isinstance(getattr(image, "dtype", None), np.dtype) and hasattr(image, "__getitem__"):
        image = image if isinstance(image, np.ndarray | np.generic) else Sliced(image)
    image = image if isinstance(image, np.ndarray | Sliced) else np.asarray(image)
    channels = model.inputs[0].shape[-1]
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] != channels or image.size == 0:
        raise ValueError(
            f"The model takes one image of the shape (height, width, {channels}). Received: "
            f"image.shape={image.shape}{_remedy(image.shape, channels)}"
        )
    if np.ma.is_masked(image):
        raise ValueError(
            "An image should have no masked pixels, as the numbers below would count. Received: "
            "some. Fill them with what is like no object, for example by `image.filled(0)`."
        )
    if image.dtype.kind not in "buif":
        raise ValueError(
            "An image should hold integers or floats. Received: an array of the dtype "
            f"{image.dtype}."
        )
    asks = isinstance(_first_layer(model), keras.layers.Rescaling | keras.layers.Normalization)
    if image.dtype != "uint8" or (asks and not takes_bytes(model)):
        low, high = _check_range(image, takes_bytes(model))
        _question(model, low, high)
    return image


def takes_bytes(model: keras.Model) -> bool:
    """Return whether a model begins with a preprocessing of pixels in [0, 255]."""
    first = _first_layer(model)
    if isinstance(first, keras.layers.Rescaling):
        return bool(DEEP <= np.max(np.abs(first.scale)) < 0.02)  # 1/127.5 or 1/255
    return isinstance(first, VGGPreprocessing)


def _first_layer(model):
    passing = keras.layers.InputLayer | SizeCheck
    return next((layer for layer in leaves(model) if not isinstance(layer, passing)), None)


def leaves(model: keras.Model):
    """Yield the layers of a model and of the models nested in it, in order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def _remedy(shape, channels):
    if len(shape) == 3 and shape[0] == channels != shape[2]:
        return ". Its channels seem to come first: pass `np.moveaxis(image, 0, -1)`."
    if len(shape) == 4 and shape[0] == 1:
        return ". Pass the image alone, `image[0]`."
    if len(shape) == 3 and (shape[2], channels) == (4, 3):
        return ". If the fourth channel is opacity, pass `image[..., :3]`."
    return "."


def _check_range(image, in_bytes):
    """Raise or warn where the numbers can't be meant; return the lowest and the highest."""
    low, high = np.inf, -np.inf
    step = max(1, BLOCK // (image.shape[1] * image.shape[2]))
    for top in range(0, len(image), step):
        block = image[top : top + step]
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            _raise_not_finite(block, top)
        low, high = min(low, block.min()), max(high, block.max())
    if not in_bytes:
        return low, high
    if image.dtype == bool:
        raise ValueError(
            "The model takes pixels in [0, 255]. Received: an image of True and False. Pass "
            "`np.uint8(255) * image`."
        )
    slack = OVERSHOOT if image.dtype.kind == "f" else 0
    if low < -slack or high > 255 + slack:
        raise ValueError(
            f"The model takes pixels in [0, 255]. Received: {image.dtype} values from {low} to "
            f"{high}. Scale them, by `image / 257` if 65535 is white, by `image * (255 / 4095)` "
            "for 12 bits."
        )
    if image.dtype.kind == "f" and 0 < high <= 1:
        warnings.warn(
            f"The model takes pixels in [0, 255], and the image holds floats from {low:.3g} to "
            f"{high:.3g}, which are all but black to it. Pass `255 * image`, or a model with "
            "`include_preprocessing=False`.",
            stacklevel=4,
        )
    return low, high


def _question(model, low, high):
    """Warn of numbers far from those that the model's first layer is made for."""
    white = _missed_white(_first_layer(model), float(low), float(high))
    if white is None:
        return
    own = next((own for own in (1, 255) if high <= own), 65535)
    scale = f"keras.layers.Rescaling({white:g} / {own})"
    made = f"keras.Sequential([keras.Input(model.input_shape[1:]), {scale}, model])"
    warnings.warn(
        f"By its first layer the model {model.name!r} takes pixels in [0, {white:g}], and those of "
        f"the image are in [0, {own}]. "
        + choose(
            f"Pass `image * ({white:g} / {own})`.",
            f"Let the model scale the pixels: {remake(made, file_of(model), 'scaled')}; for "
            "predictions that are written, with another output folder.",
        ),
        stacklevel=4,
    )


def _missed_white(first, low, high):
    """Return the white of a first layer from which the numbers of an image are far, else None."""
    if isinstance(first, keras.layers.Rescaling):
        scale = float(np.max(np.abs(first.scale)))
        return 1 / scale if 0 < scale < DEEP and 0 < high <= 255 else None
    if not isinstance(first, keras.layers.Normalization) or low == high:
        return None
    if (mean := getattr(first, "mean", None)) is None:  # not adapted
        return None
    mean, variance = map(keras.ops.convert_to_numpy, (mean, first.variance))
    deviation = float(np.sqrt(variance.mean()))
    if NARROW * deviation < high - low < WIDE * deviation:
        return None
    reach = float(abs(mean).max()) + deviation
    return next(white for white in (1, 255, 65535) if reach < 2 * white or white == 65535)


def _raise_not_finite(block, top):
    wrong = np.argwhere(~np.isfinite(block).all(axis=-1))
    row, column = wrong[0]
    raise ValueError(
        f"An image should hold finite numbers. Received: NaN or infinite ones, the first at row "
        f"{row + top}, column {column}. Fill them, for example by `np.nan_to_num(image)`."
    )
