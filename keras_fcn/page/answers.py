"""What a segmentation model sees in a picture."""

import contextlib
import dataclasses
import functools
import itertools
import os
import time
from pathlib import Path

import numpy as np

from keras_fcn.arguments import expand_home
from keras_fcn.cards import pretrained
from keras_fcn.catalogue import classes_of, load_model
from keras_fcn.classes import Classes
from keras_fcn.inference import predict_image
from keras_fcn.inference.predict import check_options
from keras_fcn.label_maps import to_labels
from keras_fcn.visualize import entropy_map, overlay

TILE = 1024  # pixels: larger pictures are predicted in tiles
KEPT_MODELS = 3
MOST_CLASSES = 256  # of a palette PNG
MOST_ENTRIES = 5000  # files and folders that are looked at for models


@dataclasses.dataclass(frozen=True)
class Answer:
    """A picture as one model sees it.

    Attributes:
        model: name of the model, or its file.
        image: uint8 array `(height, width, 3)`.
        label_map: integer array `(height, width)`.
        classes: `Classes`.
        areas: list of (label, pixels), the largest first, of the classes that occur.
        certainty: `PIL.Image`, black where the model is certain, or None for scores
            that are no probabilities.
        seconds: time of the prediction.
    """

    model: str
    image: np.ndarray
    label_map: np.ndarray
    classes: Classes
    areas: list
    certainty: object
    seconds: float

    def overlay(self):
        """Return the picture with its classes at half opacity and a legend, `PIL.Image`."""
        return overlay(self.image, self.label_map, self.classes.colors, self.classes.names)


def choices():
    """Return the names of the shipped weights, and the `.keras` files nearby."""
    return [*pretrained(), *nearby_models()]


def nearby_models(folder=".", most=MOST_ENTRIES):
    """Return the paths of the `.keras` files in a folder, and up to two folders deeper.

    Args:
        folder: where to look.
        most: files and folders to look at, the nearest first: the folder may be the top of
            a disk, and the page should open at once.
    """
    entries = itertools.islice(_walk(folder), most)
    return sorted(
        os.path.normpath(entry.path)
        for entry in entries
        if entry.name.endswith(".keras") and entry.is_file()
    )


def _walk(folder, deep=2):
    """Yield what is in a folder, then what is in the folders in it; nothing hidden."""
    folders = [folder]
    for _ in range(deep + 1):
        deeper = []
        for path in folders:
            with contextlib.suppress(OSError), os.scandir(path) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        yield entry
                        deeper += [entry.path] if entry.is_dir() else []
        folders = deeper


def find_model(name):
    """Return a model and its `Classes`; the last few are kept.

    Args:
        name: a shipped name, or the path of a `.keras` file, as it is typed: with spaces
            around it, or `~` for the home folder.

    Raises:
        ValueError, FileNotFoundError: for anything else.
    """
    name = expand_home(name.strip())
    path = Path(name)
    changed = path.stat().st_mtime_ns if path.is_file() else None
    return _load(name, changed)


@functools.lru_cache(KEPT_MODELS)
def _load(name, _changed):
    """Load a model; another time of change is another file."""
    model = load_model(name)
    *size, channels = model.input_shape[1:]
    if channels not in (1, 3):
        raise ValueError(
            f"The page shows models of pictures with 1 or 3 channels. Received: {name}, which "
            f"takes {channels}. Call `keras_fcn.predict_image` with an array instead."
        )
    check_options(model)
    if size == [None, None]:  # compiled here, so that an answer's time is that of predicting
        predict_image(model, np.zeros((64, 64, channels), "uint8"))
    return model, classes_of(model)


def answer(name, read):
    """Return what a model sees in a picture.

    Args:
        name: a shipped name, or the path of a `.keras` file.
        read: function from a number of channels, 1 or 3, to the picture, a uint8 array
            `(height, width, channels)`.

    Returns:
        `Answer`.

    Raises:
        ValueError: for a picture or a model that does not do; the message says why.
        FileNotFoundError: for a model file that is not there.
    """
    name = name.strip()
    image = read(3)
    model, classes = find_model(name)
    channels = model.input_shape[-1]
    given = image if channels == 3 else read(channels)
    large = image.shape[0] * image.shape[1] > TILE**2
    start = time.perf_counter()
    scores = predict_image(model, given, tile_size=TILE if large else None)
    seconds = time.perf_counter() - start
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"The page shows {MOST_CLASSES} classes or fewer. Received: {name}, with "
            f"{len(classes)}. Call `keras_fcn.predict_image` instead."
        )
    if scores.shape[:2] != image.shape[:2]:
        raise ValueError(
            "The page shows models whose map has the picture's size. Received: a map of "
            f"{scores.shape[0]} x {scores.shape[1]} for {image.shape[0]} x {image.shape[1]} "
            "pixels. The second tab shows classifiers that slide."
        )
    label_map = to_labels(scores)
    return Answer(name, image, label_map, classes, areas(label_map), certainty(scores), seconds)


def areas(label_map):
    """Return [(label, number of its pixels)], the largest first.

    Example:

    >>> areas(np.array([[2, 0], [2, 2]]))
    [(2, 3), (0, 1)]
    """
    labels, counts = np.unique(label_map, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return list(zip(labels[order].tolist(), counts[order].tolist(), strict=True))


def certainty(scores):
    """Return the map of the entropy, `PIL.Image`, or None for scores that are no probabilities."""
    if scores.shape[-1] == 1:
        scores = np.concatenate([1 - scores, scores], axis=-1)
    try:
        return entropy_map(scores)
    except ValueError:  # a model with classifier_activation=None
        return None
