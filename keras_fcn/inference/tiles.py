"""An image piece by piece: exactly what the whole image gives, by the receptive field."""

import numbers
import weakref
from collections.abc import Iterator

import keras
import numpy as np

from keras_fcn.inference.images import leaves
from keras_fcn.layers import SizeCheck
from keras_fcn.remedies import spell

SIDES = (256, 512, 1024)  # of images to ask a model what it makes of them
LARGE, REACH = 2**15, 257  # a side that fits most models, and how far one that fits is looked for

_fields: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_free: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_margins: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
# model: (height and width of images, shape of its output for them), the last that was asked for
_shapes: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class View:
    """An image as a network is to see it: an unpadded one with mirrored borders.

    Args:
        model: Keras model.
        image: array `(height, width, channels)`.

    Attributes:
        size: height and width that the network sees.
        mirrored: whether these are more than the image's.
    """

    def __init__(self, model: keras.Model, image: np.ndarray):
        self.image = image
        paddings = [_mirror(model, size) for size in image.shape[:2]]
        self.mirrored = paddings[0] is not None
        # the row (column) of the image for each one that the network sees
        self.places = [
            np.pad(np.arange(size), padding or 0, mode="reflect")
            for size, padding in zip(image.shape[:2], paddings, strict=True)
        ]
        self.size = tuple(len(places) for places in self.places)

    def crop(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Return a part, by default all, as float32 `(height, width, channels)`."""
        if not self.mirrored:
            return np.ascontiguousarray(self.image[rows, columns], "float32")
        places = self.places[0][rows], self.places[1][columns]
        corner = [place.min() for place in places]
        part = self.image[tuple(slice(place.min(), place.max() + 1) for place in places)]
        inside = np.ix_(*(place - first for place, first in zip(places, corner, strict=True)))
        return np.ascontiguousarray(part[inside], "float32")


def with_free_size(model: keras.Model) -> keras.Model:
    """Return a model of the same layers for float32 images of any height and width.

    Raises:
        Exception: whatever a layer raises that was made for one size.
    """
    images = keras.Input((None, None, model.inputs[0].shape[-1]), name=model.inputs[0].name)
    return keras.models.clone_model(model, images, clone_function=lambda layer: layer)


def free_size(model: keras.Model) -> keras.Model:
    """Return a model as one for float32 images of any size, or itself where a layer needs its size.

    It is made once. What is built for images of one size computes others, too, where its layers do.
    """
    tensor = model.inputs[0]
    if tuple(tensor.shape[1:3]) == (None, None) and tensor.dtype == "float32":
        return model
    if model not in _free:
        try:
            free = with_free_size(model)
        except Exception:  # whatever a layer raises
            free = model
        is_free = None in free.outputs[0].shape[1:3]  # else a layer in it makes maps of one size
        _free[model] = free if is_free else None
    return _free[model] or model


def check_tile_size(tile_size) -> tuple[int, int] | str | None:
    """Return the height and width of the pieces; None and "auto" as they are.

    Raises:
        ValueError: unless `tile_size` is a positive integer, a pair of them, "auto" or None.
    """
    if tile_size is None or (isinstance(tile_size, str) and tile_size == "auto"):
        return tile_size
    pair = tile_size if isinstance(tile_size, tuple | list) else (tile_size, tile_size)
    if len(pair) != 2 or not all(_is_positive_integer(side) for side in pair):
        raise ValueError(
            "`tile_size` should be an integer of at least 1, or a pair of them, the height and "
            f'width of the pieces, or "auto". Received: tile_size={tile_size!r}. 512 is a good '
            "start; larger is faster."
        )
    return int(pair[0]), int(pair[1])


def boxes(size: tuple, tile_size: tuple) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of the rows and columns of each piece of a map."""
    for top in range(0, size[0], tile_size[0]):
        for left in range(0, size[1], tile_size[1]):
            yield (
                slice(top, min(top + tile_size[0], size[0])),
                slice(left, min(left + tile_size[1], size[1])),
            )


def predict_piece(predict, field, view: View, box: tuple) -> np.ndarray:
    """Predict a piece of a map, from as much of the image as reaches it.

    Args:
        predict: function from float32 `(height, width, channels)` to the model's map.
        field: the model's `ReceptiveField`.
        view: the image.
        box: slices of the rows and columns of the piece.

    Returns:
        float32 array of the size of the box.
    """
    tile, keep = [], []
    for axis, piece in enumerate(box):
        begin, end = field.tile(piece.start, piece.stop, view.size[axis], axis)
        first = int(piece.start - begin / field.stride[axis])
        tile.append(slice(begin, end))
        keep.append(slice(first, first + piece.stop - piece.start))
    return predict(view.crop(*tile))[tuple(keep)]


def receptive_field_of(model: keras.Model):
    """Return the `ReceptiveField` of a model, computed once.

    Raises:
        ValueError: when pixels far apart meet in the model.
    """
    from keras_fcn.receptive_fields import receptive_field

    if model not in _fields:
        try:
            _fields[model] = receptive_field(free_size(model))
        except ValueError as error:
            raise ValueError(
                f"Tiles need a model of which each output pixel sees a part of the image. {error} "
                f"Or predict the whole image at once, without {spell('tile_size')}."
            ) from error
    return _fields[model]


def map_size(model: keras.Model, view: View) -> tuple[int, int]:
    """Return the height and width of the map that the model makes of an image."""
    if view.mirrored:
        return view.image.shape[:2]
    return _output_shape(model, view.size)[1:3]


def _output_shape(model, size):
    """Return the shape of the output for an image; asked for again of the same size, at once.

    Keras goes through all layers, which takes longer than to compute a small tile.
    """
    known, shape = _shapes.get(model, (None, None))
    if known != size:
        images = (1, *size, model.inputs[0].shape[-1])
        shape = tuple(free_size(model).compute_output_shape(images))
        _shapes[model] = size, shape
    return shape


def example_size(model: keras.Model) -> tuple | None:
    """Return the height and width of an image and of the map that the model makes of it.

    None where it takes none of a few sizes, and so the images alone will tell.
    """
    height, width, channels = model.inputs[0].shape[1:]
    for side in SIDES:
        size = (height or side, width or side)
        view = View(model, np.broadcast_to(np.uint8(0), (*size, channels)))
        if takes_size(model, view.size):
            return size, map_size(model, view)
    return None


def leaves_map(model: keras.Model, size: tuple) -> bool:
    """Return whether images of this height and width are not too small for a model's layers."""
    try:
        shape = _output_shape(model, size)
    except Exception:  # whatever the layers raise for maps that are too small for them
        return False
    return all(side is None or side > 0 for side in shape[1:3])


def takes_size(model: keras.Model, size: tuple) -> bool:
    """Return whether a model makes a map of images of this height and width."""
    from keras_fcn.receptive_fields import maps_fit

    return leaves_map(model, size) and maps_fit(free_size(model), size)


def nearest_sizes(model: keras.Model, size: tuple) -> list[tuple]:
    """Return the largest smaller and the smallest larger size that a model takes, if there are.

    One that it takes by itself for a height (or width) keeps it.
    """
    sides = []
    for axis in (0, 1):

        def fits(side, axis=axis):
            return takes_size(model, (side, LARGE) if axis == 0 else (LARGE, side))

        side = size[axis]
        smaller = range(side, max(0, side - REACH), -1)
        larger = range(side, side + REACH)
        sides.append([next(filter(fits, among), None) for among in (smaller, larger)])
    return [pair for pair in zip(*sides, strict=True) if None not in pair]


def check_fits(model: keras.Model, size: tuple, error: Exception | None = None) -> None:
    """Raise `ValueError`, caused by `error`, for a size of images that a model does not take."""
    if not takes_size(model, size):
        raise misfit(model, size) from error


def misfit(model: keras.Model, size: tuple) -> ValueError:
    """Return the error for an image of a size that a model does not take."""
    received = f"Received: {size[0]}x{size[1]} pixels, of which {model.name!r} makes no map."
    fixed = free_size(model).inputs[0].shape[1:3]
    if None not in fixed:
        return ValueError(
            f"The image should be of the size for which the model was built, {fixed[0]}x{fixed[1]} "
            f"pixels, which a layer of it needs. {received} Resize the image or cut it up."
        )
    near = [f"{height}x{width}" for height, width in nearest_sizes(model, size)]
    if len(near) == 2:
        return ValueError(
            "The image should be of a size at which the maps that the model merges fit together. "
            f"{received} Crop it to {near[0]} or pad it to {near[1]}."
        )
    return ValueError(
        f"The image should be as large as the model's window. {received} Enlarge or pad the image."
    )


def _mirror(model, size):
    """Return the rows before and after the image that an unpadded network takes off, or None.

    The rows after are as many more as it takes to fit.
    """
    if model not in _margins:
        _margins[model] = _margin(model)
    if _margins[model] is None:
        return None
    margin, minimum, step = _margins[model]
    missing = max(0, size + margin - minimum)
    padded = minimum + -(-missing // step) * step  # rounded up to fit
    return margin // 2, padded - size - margin // 2


def _margin(model):
    """Return the rows that an unpadded network takes off, its least size and its step, or None.

    None for a network that is padded, or whose map is not the image's size less a margin.
    """
    check = next((layer for layer in leaves(model) if isinstance(layer, SizeCheck)), None)
    if check is None:
        return None
    channels, free = model.inputs[0].shape[-1], free_size(model)
    margins = {
        image - free.compute_output_shape((1, image, image, channels))[1]
        for image in (check.minimum, check.minimum + check.step)
    }
    return (*margins, check.minimum, check.step) if len(margins) == 1 else None


def _is_positive_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1
