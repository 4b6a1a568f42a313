"""Pictures of predictions: classes over the image, and outlines of objects."""

from fractions import Fraction

import keras
import numpy as np
from PIL import Image

from keras_fcn.convolutionize import window_of
from keras_fcn.inference.tiles import receptive_field_of
from keras_fcn.visualize import overlay

OUTLINE = (255, 220, 0)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8 with one or three channels; other numbers are stretched to see."""
    image = image[..., : 3 if image.shape[2] >= 3 else 1]
    if image.dtype == "uint8":
        return image
    low, high = image.min(), image.max()
    return ((image - low) * (255 / max(high - low, 1e-9))).round().astype("uint8")


def draw_classes(model: keras.Model, image: np.ndarray, labels: np.ndarray, classes) -> Image.Image:
    """Lay the classes over an image.

    A map that is not of the image's size, as of a classifier's windows, is laid where the
    middles of the windows are.

    Args:
        model: the model that made the labels.
        image: uint8 array `(height, width, 1 or 3)`.
        labels: integer array `(rows, columns)`.
        classes: `keras_fcn.Classes`.
    """
    if labels.shape == image.shape[:2]:
        return overlay(image, labels, classes.palette, classes.names)
    cuts = []
    grid = zip(image.shape, *_windows(model, image, labels), labels.shape, strict=False)
    for size, window, stride, offset, count in grid:
        middle = offset + (window - stride) / 2  # of the first window, as far as it stands for
        places = np.floor((np.arange(size) - float(middle)) / float(stride)).astype(int)
        inside = np.flatnonzero((places >= 0) & (places < count))
        cuts.append((slice(inside[0], inside[-1] + 1), places[inside]))
    (rows, row_places), (columns, column_places) = cuts
    placed = labels[np.ix_(row_places, column_places)]
    return overlay(image[rows, columns], placed, classes.palette, classes.names)


def _windows(model, image, labels):
    """Return the size, stride and offset of the windows that the places of a map stand for."""
    try:
        field = receptive_field_of(model)
        return field.size, field.stride, field.offset
    except ValueError:  # pixels far apart meet, as by squeeze and excitation
        if None in model.inputs[0].shape[1:3]:
            return *window_of(model), (0, 0)
    strides = [Fraction(*sizes) for sizes in zip(image.shape, labels.shape, strict=False)]
    return strides, strides, (0, 0)


def draw_outlines(image: np.ndarray, objects: np.ndarray) -> Image.Image:
    """Draw the outlines of objects into an image.

    Args:
        image: uint8 array `(height, width, 1 or 3)`.
        objects: integer array `(height, width)`: 0 background.
    """
    from skimage.segmentation import find_boundaries

    picture = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
    picture[find_boundaries(objects, mode="inner")] = OUTLINE
    return Image.fromarray(picture)
