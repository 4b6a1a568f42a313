"""Predict class probabilities for one image of any size."""

import contextlib
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_fcn.arguments import check_choice
from keras_fcn.catalogue import file_of
from keras_fcn.inference.engines import compiled
from keras_fcn.inference.images import check_image, check_model
from keras_fcn.inference.memory import choose_tile_size, release
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import Calibration
from keras_fcn.inference.tiles import (
    View,
    boxes,
    check_fits,
    check_tile_size,
    example_size,
    leaves_map,
    map_size,
    misfit,
    predict_piece,
    receptive_field_of,
)
from keras_fcn.label_maps import ROUNDING, to_labels
from keras_fcn.private import operation_of
from keras_fcn.remedies import choose, remake

# Quarter turns, and whether the turned image is mirrored, by `test_time_augmentation`.
SYMMETRIES = {
    False: [(0, False)],
    True: [(0, False), (0, True)],
    "dihedral": [(turns, mirrored) for turns in range(4) for mirrored in (False, True)],
}
OUTPUTS = ("probabilities", "labels")
# With other values of these options images are not in the network at once.
ALONE = {"tile_size": None, "test_time_augmentation": False, "scales": (1,)}


def predict_image(
    model: keras.Model,
    image: np.ndarray,
    tile_size: int | tuple[int, int] | str | None = None,
    engine: str = "keras",
    test_time_augmentation: bool | str = False,
    scales: Sequence[float] = (1,),
    precision: str = "float32",
    output: str = "probabilities",
    calibration: "str | Path | Calibration | Sequence | None" = None,
) -> np.ndarray:
    """Predict the class probabilities of every pixel of one image.

    The model is compiled once for images of any size, so the first call costs
    more than those after it. Unpadded (`padding="valid"`) U-Nets, which lose a
    margin on each side, get the image with mirrored borders (U-Net paper,
    section 2), and so return a map of the image's size too. What is no map of
    the image's size, as of a model made by `fully_convolutional`, comes in its
    own grid.

    Args:
        model: Keras model on `(batch, height, width, channels)`.
        image: array `(height, width, channels)`, or `(height, width)` for one
            channel; for a model with `include_preprocessing=True` pixels in
            [0, 255], RGB, uint8 or float. Of a `numpy.memmap`, and of what has a NumPy
            dtype and slices as an array of Zarr or HDF5, with `tile_size` a part at a time
            is read.
        tile_size: side, or height and width, of the pieces of the result that are
            made one at a time, for images too large for memory. Each is made from
            as much of the image as reaches it (see `receptive_field`), so the
            result is that of the whole image, but for the rounding of float32 (some 1e-6
            of its scale). By default the whole at once. "auto": the
            whole if it fits into the memory that is free, else the largest tiles that do
            (see `keras_fcn.inference.memory.choose_tile_size`).
        engine: what computes: "keras", "openvino" or "onnx" (ONNX Runtime). The
            last two need their packages, and are compared with Keras once for
            each model.
        test_time_augmentation: True to average over the image and its mirror image,
            "dihedral" over its eight flips and quarter turns, for images without
            an up and down.
        scales: the image is predicted at each of these sizes, 1 its own, and the
            results, brought to its size, are averaged.
        precision: "float32"; with OpenVINO, on a processor that has such numbers, also
            "bfloat16", or "int8", which is compared with Keras on one of the images that it is
            calibrated on, and may differ by a few labels in a hundred.
        output: "probabilities", or "labels" for the label of each pixel (see
            `keras_fcn.label_maps.to_labels`); at one scale and in tiles the
            probabilities of the whole image are then never held.
        calibration: for "int8" at least 10 images such as the network is for, by which numbers
            become integers, once for each model: a folder of them, as a path or as
            `keras_fcn.inference.Calibration`, or a list of arrays.

    Returns:
        float32 array `(height, width, num_classes)`: probabilities, or scores
        for a model with `classifier_activation=None`; or with `output="labels"`
        an int32 array `(height, width)`.

    Raises:
        ValueError: when the image has other channels than the model takes or
            numbers that can't be meant, when the scores are not finite, when an
            engine's result is not Keras's, for tiles of a model in which pixels
            far apart meet, and for averages over what is no map of the image's size.
        ImportError: when the engine's package is missing.

    Example:

    >>> import numpy as np
    >>> from keras_fcn import UNet
    >>> model = UNet(num_classes=2, filters=(8, 16))
    >>> predict_image(model, np.zeros((31, 57, 3), "uint8")).shape
    (31, 57, 2)
    >>> image = np.zeros((31, 57, 3), "uint8")
    >>> predict_image(model, image, test_time_augmentation=True, scales=(0.75, 1)).shape
    (31, 57, 2)
    """
    _check_averages(test_time_augmentation, scales)
    check_choice("output", output, OUTPUTS)
    tile_size = check_tile_size(tile_size)
    check_model(model)
    image = check_image(image, model)
    network = compiled(model, engine, precision, calibration)
    return _predict_checked(
        model, network, image, output, tile_size, test_time_augmentation, scales
    )


def _predict_checked(
    model, network, image, output, tile_size=None, test_time_augmentation=False, scales=(1,)
):
    symmetries = SYMMETRIES[test_time_augmentation]
    if list(scales) == [1]:
        finish = to_labels if output == "labels" else None
        return _predict(model, network, image, tile_size, symmetries, finish)
    total = np.float32(0)
    for scale in scales:
        scaled = _resize(image, scale)
        scores = _predict(model, network, scaled, tile_size, symmetries)
        _check_size(model, scores.shape[:2], scaled.shape[:2])
        total += _resize_to(scores, image.shape[:2])
    scores = np.asarray(total / len(scales))
    return to_labels(scores) if output == "labels" else scores


def network_of(
    model: keras.Model, engine="keras", precision="float32", calibration=None, **_
) -> Callable:
    """Return the model as the function that `predict_image` uses with these options."""
    return compiled(model, engine, precision, calibration)


def predict_images(
    model: keras.Model,
    images: Sequence[np.ndarray],
    network: Callable,
    output: str = "probabilities",
    **how,
) -> list[np.ndarray | Exception]:
    """Predict images of one shape, in the network at once where nothing is averaged or in tiles.

    Args:
        model: Keras model, as `predict_image` takes it.
        images: arrays of one shape, as `predict_image` takes them.
        network: of `network_of`: to see whether a model has changed since it was compiled takes
            20 ms, which is much for a small image.
        output: as in `predict_image`.
        **how: its other options, checked by `check_options`; those of `network_of` are ignored.

    Returns:
        For each image what `predict_image` gives, to rounding, or the error that it raises.
    """
    how = {name: how.get(name, value) for name, value in ALONE.items()}
    how["tile_size"] = check_tile_size(how["tile_size"])
    if len(images) > 1 and how == ALONE:
        with contextlib.suppress(*errors_of_an_image()):  # one by one it is seen of which
            return _predict_together(model, network, images, output)
    predictions: list = []
    for image in images:
        try:
            checked = check_image(image, model)
            predictions.append(_predict_checked(model, network, checked, output, **how))
        except errors_of_an_image() as error:
            predictions.append(error)
    return predictions


def _predict_together(model, network, images, output):
    views = [View(model, check_image(image, model)) for image in images]
    maps = _call(model, network, np.stack([view.crop() for view in views]))
    if views[0].mirrored:
        maps = [_trim(scores, view) for scores, view in zip(maps, views, strict=True)]
    return [to_labels(scores) for scores in maps] if output == "labels" else list(maps)


def check_options(
    model: keras.Model,
    tile_size: int | tuple[int, int] | str | None = None,
    engine: str = "keras",
    precision: str = "float32",
    calibration: "str | Path | Calibration | Sequence | None" = None,
    takes: str = "labels",
    **averages,
) -> None:
    """Raise for options that `predict_image` does not take for a model.

    `takes` says what is made of the scores: "labels" or "objects", which `check_scores` looks
    into, or "probabilities", the scores as they are.
    """
    _check_averages(**averages)
    network = compiled(model, engine, precision, calibration)
    if isinstance(check_tile_size(tile_size), tuple):
        receptive_field_of(model)
    several = averages.get("test_time_augmentation") or list(averages.get("scales", (1,))) != [1]
    if several and (example := example_size(model)):
        _check_size(model, *reversed(example))
    if takes == "objects" or (takes == "labels" and model.outputs[0].shape[-1] == 1):
        check_scores(model, network)


def check_scores(model: keras.Model, network: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raise unless a model gives probabilities, of noise where its last layer does not say so.

    Args:
        model: Keras model.
        network: the model as a function, of `keras_fcn.inference.engines.compiled`.
    """
    example = None if _ends_in_probabilities(model) else example_size(model)
    if example is None:
        return
    noise = np.random.default_rng(0).random((*example[0], model.inputs[0].shape[-1]), "float32")
    images = (noise, 255 * noise)  # for models of the one range and of the other
    maps = [Pieces(model, network, image, None, SYMMETRIES[False]).whole() for image in images]
    low, high = np.min(maps), np.max(maps)
    if low < -ROUNDING or high > 1 + ROUNDING:
        end = "sigmoid" if model.outputs[0].shape[-1] == 1 else "softmax"
        make = f'keras.Sequential([model, keras.layers.Activation("{end}")])'
        raise ValueError(
            "The scores of the model should be probabilities, in [0, 1]. Received: those of "
            f"{model.name!r}, from {low:.3g} to {high:.3g} of noise, as without a {end}. Let the "
            f"model end in one, by {remake(make, file_of(model), end)}."
        )


def _ends_in_probabilities(model):
    """Whether the last layer of a model, or of the last one nested in it, is a sigmoid or softmax.

    False also for a layer of which nothing is known.
    """
    last = model
    while outputs := getattr(last, "outputs", None):
        last = operation_of(outputs[0])
    names = {type(last).__name__, getattr(getattr(last, "activation", None), "__name__", "")}
    return not {name.lower() for name in names}.isdisjoint({"sigmoid", "softmax"})


def errors_of_an_image() -> tuple[type[Exception], ...]:
    """Return the errors that one image may cause, and another not."""
    tensorflow = sys.modules.get("tensorflow")
    operations = () if tensorflow is None else (tensorflow.errors.OpError,)
    return (ValueError, OSError, MemoryError, *operations)


def _check_averages(test_time_augmentation=False, scales=(1,)):
    check_choice("test_time_augmentation", test_time_augmentation, tuple(SYMMETRIES))
    valid = isinstance(scales, tuple | list) and all(
        isinstance(scale, numbers.Real) and not isinstance(scale, bool) and 0 < scale < math.inf
        for scale in scales
    )
    if not valid or not scales:
        raise ValueError(
            "`scales` should be a sequence of finite factors above 0, for example (0.75, 1, 1.25). "
            f"Received: scales={scales!r}"
        )


def _resize(image, scale):
    return _resize_to(image, [max(1, round(size * scale)) for size in image.shape[:2]])


def _resize_to(image, size):
    """Resize (H, W, C) bilinearly, without aliasing; nothing to do at its own size."""
    if tuple(size) == image.shape[:2]:
        return image
    image = np.asarray(image, "float32")
    return keras.ops.convert_to_numpy(keras.ops.image.resize(image, size, antialias=True))


def _predict(model, network, image, tile_size, symmetries, finish=None):
    """Return the mean of the scores over the symmetries of the square, whole or in tiles.

    `finish` is applied to each piece of scores.
    """
    finish = finish or (lambda scores: scores)
    pieces = Pieces(model, network, image, tile_size, symmetries)
    if pieces.boxes is None:
        return finish(pieces.whole())
    result = None
    for box in track(pieces.boxes, "Predicting in tiles"):
        piece = finish(pieces.predict(box))
        if result is None:
            result = np.empty((*pieces.size, *piece.shape[2:]), piece.dtype)
        result[box] = piece
        release(image)
    return result


class Pieces:
    """The mean of the scores of an image over its symmetries, whole or piece by piece.

    Args:
        model: Keras model.
        network: the model as a function, of `keras_fcn.inference.engines.compiled`.
        image: array `(height, width, channels)`, checked.
        tile_size: height and width of the pieces, "auto" or None for the whole.
        symmetries: one of `SYMMETRIES`.

    Attributes:
        tile_size: height and width of the pieces; None for the whole.
        size: height and width of the result; None where it is made as a whole.
        boxes: slices of the rows and columns of each piece; None for the whole.
    """

    def __init__(self, model, network, image, tile_size, symmetries):
        self.model, self.network, self.symmetries = model, network, symmetries
        self.views = [View(model, _turn(image, *symmetry)) for symmetry in symmetries]
        self.size = self.boxes = None
        if tile_size == "auto":
            tile_size = choose_tile_size(model, self.views[0])
        self.tile_size = tile_size
        if tile_size is None:
            return
        self.field = receptive_field_of(model)
        check_fits(model, self.views[0].size)
        self.size = map_size(model, self.views[0])
        if len(self.views) > 1:
            _check_size(model, self.size, image.shape[:2])
        self.boxes = list(boxes(self.size, tile_size))

    def whole(self) -> np.ndarray:
        """Return the scores of the whole image, float32 `(rows, columns, channels)`."""
        maps = [self._call(view.crop()) for view in self.views]
        if self.views[0].mirrored:
            maps = [_trim(scores, view) for scores, view in zip(maps, self.views, strict=True)]
        if len(maps) > 1:
            _check_size(self.model, maps[0].shape[:2], self.views[0].image.shape[:2])
        return _mean(map(_turn_back, maps, self.symmetries))

    def predict(self, box: tuple) -> np.ndarray:
        """Return the scores of a piece."""
        return _mean(
            _turn_back(
                predict_piece(self._call, self.field, view, _turn_box(box, self.size, *turn)), turn
            )
            for view, turn in zip(self.views, self.symmetries, strict=True)
        )

    def _call(self, part):
        return _call(self.model, self.network, part[None])[0]


def _mean(maps):
    total, count = 0, 0
    for scores in maps:  # one at a time: they may be large
        total, count = total + scores, count + 1
    return total / count if count > 1 else total


def _trim(scores, view):
    """Return the part of an unpadded network's map that is the image's."""
    height, width = view.image.shape[:2]
    return scores[:height, :width]


def _turn(image, turns, mirrored):
    """Turn an image by quarters, then mirror it; of an array no numbers are copied."""
    if (turns, mirrored) == SYMMETRIES[False][0]:
        return image
    view = np.rot90(image, turns)
    return view[:, ::-1] if mirrored else view


def _turn_back(scores, symmetry):
    turns, mirrored = symmetry
    return np.rot90(scores[:, ::-1] if mirrored else scores, -turns)


def _turn_box(box, size, turns, mirrored):
    """Return where the box of a map of this size is in the turned map."""
    (rows, columns), (height, width) = box, size
    for _ in range(turns):  # pixel (row, column) goes to (width - 1 - column, row)
        rows, columns = slice(width - columns.stop, width - columns.start), rows
        height, width = width, height
    if mirrored:
        columns = slice(width - columns.stop, width - columns.start)
    return rows, columns


def _call(model, network, parts):
    """Return the scores of parts of images (batch, height, width, channels), checked."""
    try:
        scores = network(parts)
    except Exception as error:
        check_fits(model, parts.shape[1:3], error)
        raise
    # TensorFlow may give something for an empty map
    if scores.shape[1:3] != parts.shape[1:3] and not leaves_map(model, parts.shape[1:3]):
        raise misfit(model, parts.shape[1:3])
    return _check_finite(scores)


def _check_finite(scores):
    if not np.isfinite(scores).all():
        wrong = np.count_nonzero(~np.isfinite(scores).all(axis=-1))
        raise ValueError(
            f"The model should give finite scores. Received: NaN or infinite ones at {wrong} of "
            f"{scores[..., 0].size} pixels. Its weights hold such numbers: train again with a "
            "lower learning rate, or take an earlier file."
        )
    return scores


def _check_size(model, received, expected):
    if tuple(received) != tuple(expected):
        averages = choose("`scales` and `test_time_augmentation`", "`--tta`")
        raise ValueError(
            f"Averages, by {averages}, are of maps of the image's size. Received: the model "
            f"{model.name!r}, which makes a map of {received[0]}x{received[1]} of "
            f"{expected[0]}x{expected[1]} pixels. Predict without them."
        )
