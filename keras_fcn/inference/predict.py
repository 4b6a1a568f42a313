"""Predict class probabilities for one image of any size."""

import functools

import keras
import numpy as np

from keras_fcn.arguments import check_choice
from keras_fcn.inference.engines import compiled
from keras_fcn.inference.tiles import check_tile_size, predict_tiled
from keras_fcn.layers import SizeCheck

# Quarter turns, and whether the turned image is mirrored, by `test_time_augmentation`.
SYMMETRIES = {
    False: [(0, False)],
    True: [(0, False), (0, True)],
    "dihedral": [(turns, mirrored) for turns in range(4) for mirrored in (False, True)],
}


def predict_image(model, image, tile_size=None, test_time_augmentation=False, scales=(1,)):
    """Predict the class probabilities of every pixel of one image.

    The model is compiled once for images of any size, so the first call costs
    more than those after it. Unpadded (`padding="valid"`) U-Nets, which lose a
    margin on each side, get the image with mirrored borders (U-Net paper,
    section 2), and so return a map of the image's size too.

    Args:
        model: Keras model on `(batch, height, width, channels)`.
        image: array `(height, width, channels)`, or `(height, width)` for one
            channel; for a model with `include_preprocessing=True` pixels in
            [0, 255], RGB, uint8 or float.
        tile_size: height and width of the tiles in which to predict an image
            too large for memory, a multiple of 32 from 128 up. Tiles overlap
            and a quarter on each inner side is thrown away, so the result
            differs from the whole image's only by what pixels farther than
            that contribute. By default the whole image at once.
        test_time_augmentation: True to average over the image and its mirror image,
            "dihedral" over its eight flips and quarter turns, for images without
            an up and down.
        scales: the image is predicted at each of these sizes, 1 its own, and the
            results, brought to its size, are averaged.

    Returns:
        float32 array `(height, width, num_classes)`: probabilities, or scores
        for a model with `classifier_activation=None`.

    Raises:
        ValueError: when the image has other channels than the model takes, or
            for another `tile_size`, `test_time_augmentation` or `scales`.

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
    image = _check_image(image, model.input_shape[-1])
    if tile_size is not None:
        check_tile_size(tile_size)
    check_choice("test_time_augmentation", test_time_augmentation, tuple(SYMMETRIES))
    _check_scales(scales)
    predictions = [
        _predict_symmetric(model, _resize(image, scale), tile_size, test_time_augmentation)
        for scale in scales
    ]
    return sum(_resize_to(scores, image.shape[:2]) for scores in predictions) / len(predictions)


def _check_scales(scales):
    if not isinstance(scales, (tuple, list)) or not scales or not all(s > 0 for s in scales):
        raise ValueError(
            "`scales` should be a sequence of factors above 0, for example (0.75, 1, 1.25). "
            f"Received: scales={scales!r}"
        )


def _resize(image, scale):
    return _resize_to(image, [max(1, round(size * scale)) for size in image.shape[:2]])


def _resize_to(image, size):
    """Resize (H, W, C) bilinearly, without aliasing; nothing to do at its own size."""
    if tuple(size) == image.shape[:2]:
        return image
    return keras.ops.convert_to_numpy(keras.ops.image.resize(image, size, antialias=True))


def _predict_symmetric(model, image, tile_size, test_time_augmentation):
    """Average over the symmetries of the square: quarter turns, then the mirror image."""
    symmetries = SYMMETRIES[test_time_augmentation]
    total = 0
    for turns, mirrored in symmetries:
        view = np.rot90(image, turns)
        scores = _predict_view(model, view[:, ::-1] if mirrored else view, tile_size)
        total += np.rot90(scores[:, ::-1] if mirrored else scores, -turns)
    return total / len(symmetries)


def _predict_view(model, image, tile_size):
    predict = functools.partial(_predict_whole, model)
    if tile_size is None:
        return predict(image)
    return predict_tiled(predict, image, tile_size, model.output_shape[-1])


def _predict_whole(model, image):
    height, width = image.shape[:2]
    images = _mirror_borders(model, image)[None]
    return np.asarray(compiled(model)(images))[0, :height, :width]


def _check_image(image, channels):
    """Return the image as float32 `(height, width, channels)`."""
    image = np.asarray(image, "float32")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] != channels or image.size == 0:
        raise ValueError(
            f"The model takes one image of the shape (height, width, {channels}). Received: "
            f"image.shape={image.shape}"
        )
    return image


def _mirror_borders(model, image):
    """Give an unpadded network the margin that it takes off, mirrored; others nothing."""
    check = next((layer for layer in model.layers if isinstance(layer, SizeCheck)), None)
    if check is None:
        return image
    output_size = model.compute_output_shape((1, check.minimum, check.minimum, image.shape[2]))[1]
    margin = (check.minimum - output_size) // 2
    padding = []
    for size in image.shape[:2]:
        missing = max(0, size + 2 * margin - check.minimum)
        padded = check.minimum + -(-missing // check.step) * check.step  # rounded up to fit
        padding.append((margin, padded - size - margin))
    return np.pad(image, [*padding, (0, 0)], mode="reflect")
