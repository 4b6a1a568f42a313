"""Label maps as PNG files, overlays, and what is wrong in a label map."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from keras_fcn.atomic import replacing
from keras_fcn.visualize.palettes import VOID_COLOR

if TYPE_CHECKING:
    import matplotlib.figure

LEGEND_ROW = 24  # pixels
LARGEST_LABEL = 65535
ERROR_COLORS = ((255, 255, 255), (214, 30, 30))  # of right and of wrong pixels


def overlay(
    image: np.ndarray,
    label_map: np.ndarray,
    palette: ArrayLike,
    classes: Sequence[str],
    opacity: float = 0.5,
) -> Image.Image:
    """Lay the colours of the classes over an image, with a legend below.

    Args:
        image: uint8 array `(height, width, 3)`, `(height, width, 1)` or `(height, width)`.
        label_map: integer array `(height, width)` of classes.
        palette: uint8 array `(num_classes, 3)`, RGB.
        classes: names of the classes.
        opacity: share of the colour, 0 to 1.

    Returns:
        `PIL.Image` in RGB; the legend names the classes that occur, with their
        share of the pixels, the largest first.

    Raises:
        ValueError: for an image of another shape, or a label that is no class.
    """
    palette, image, label_map = (
        np.asarray(palette, "uint8"),
        np.asarray(image),
        check_whole(label_map),
    )
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.shape[:2] != label_map.shape:
        raise ValueError(
            "An overlay takes an image (height, width, 3), (height, width, 1) or (height, width), "
            f"and its label map (height, width). Received: an image of {image.shape}, labels of "
            f"{label_map.shape}. Of more bands choose three."
        )
    _check_labels(label_map, palette, "Give a palette for all classes.")
    blended = (1 - opacity) * image + opacity * palette[label_map]
    picture = Image.fromarray(blended.round().astype("uint8"))
    return _stack(picture, _legend(label_map, palette, classes, picture.width))


def paint(
    label_map: np.ndarray, palette: ArrayLike, ignore: int | None, void_color: Sequence[int]
) -> np.ndarray:
    """Return the colours of a label map.

    Args:
        label_map: integer array `(height, width)` of classes and void pixels.
        palette: uint8 array `(num_classes, 3)`, RGB.
        ignore: the label of void pixels, or None.
        void_color: (red, green, blue) of void pixels, 0 to 255.

    Returns:
        uint8 array `(height, width, 3)`, RGB.

    Raises:
        ValueError: for a label that is neither a class nor `ignore`.

    Example:

    >>> from keras_fcn.visualize import voc_palette
    >>> paint(np.array([[1, 255]]), voc_palette(2), 255, VOID_COLOR).tolist()
    [[[128, 0, 0], [208, 208, 208]]]
    """
    label_map = check_whole(label_map)
    void = label_map == ignore
    labels = np.where(void, 0, label_map)
    remedy = "Give a palette for all classes, or the label of void pixels as `ignore`."
    _check_labels(labels, palette, remedy)
    colors = np.asarray(palette, "uint8")
    return np.where(void[..., None], np.array(void_color, "uint8"), colors[labels])


def error_map(truth: np.ndarray, prediction: np.ndarray, ignore: int | None = None) -> Image.Image:
    """Mark the pixels where a prediction is wrong.

    Args:
        truth: integer array `(height, width)` of the true classes.
        prediction: integer array `(height, width)` of the predicted ones.
        ignore: the label of void pixels in `truth`, or None.

    Returns:
        `PIL.Image` in RGB: red where the two differ, light gray where the truth is
        void, else white.

    Raises:
        ValueError: for two maps of different shapes.

    Example:

    >>> error_map(np.array([[0, 1]]), np.array([[0, 0]])).getpixel((1, 0))
    (214, 30, 30)
    """
    wrong, void = compare_labels(truth, prediction, ignore)
    return Image.fromarray(paint(np.where(void, 2, wrong), ERROR_COLORS, 2, VOID_COLOR))


def compare_labels(truth, prediction, ignore):
    """Return where a prediction is wrong, and where the truth is void: two arrays (H, W)."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(
            "Truth and prediction should be label maps (height, width) of one shape. Received: "
            f"truth of {truth.shape}, prediction of {prediction.shape}. Probabilities become a "
            "label map by `.argmax(-1)`, those of one sigmoid by `[..., 0] > 0.5`."
        )
    truth, prediction = check_whole(truth), check_whole(prediction)
    void = truth == ignore
    return (truth != prediction) & ~void, void


def check_whole(label_map) -> np.ndarray:
    """Return a label map as an array of integers; raise for other numbers than whole ones."""
    label_map = np.asarray(label_map)
    kind = label_map.dtype.kind
    if kind not in "buif" or (kind == "f" and not (label_map == np.floor(label_map)).all()):
        raise ValueError(
            f"Labels should be whole numbers. Received: an array of the dtype {label_map.dtype}. "
            "Probabilities become a label map by `.argmax(-1)`, those of one sigmoid by "
            "`[..., 0] > 0.5`."
        )
    return label_map.astype("int64") if kind == "f" else label_map


def _check_labels(labels, palette, remedy):
    if labels.min() < 0 or labels.max() >= len(palette):
        raise ValueError(
            f"The labels should be 0 to {len(palette) - 1}, or `ignore`. Received: "
            f"{labels.min()} to {labels.max()}. {remedy}"
        )


def write_label_map(path: str | os.PathLike, label_map: np.ndarray, palette: ArrayLike) -> None:
    """Write a label map as a PNG file, whose pixel values are the classes.

    It is a palette PNG, which viewers show in the colours; for more than 256 classes, or
    labels above 255, a 16-bit gray one, for which there are no palettes. The file is
    written beside `path` and then renamed.

    Args:
        path: file to write.
        label_map: integer array `(height, width)`, values in [0, 65535].
        palette: uint8 array `(num_classes, 3)`, RGB.

    Raises:
        ValueError: for labels outside that range.
        FileExistsError: when `path` holds a file that this package did not write.
    """
    label_map = check_whole(label_map)
    low, high = label_map.min(), label_map.max()
    if low < 0 or high > LARGEST_LABEL:
        raise ValueError(
            f"A PNG file holds labels from 0 to {LARGEST_LABEL}. Received: {low} to {high}. Save "
            "others with `numpy.save`."
        )
    colors = np.asarray(palette, "uint8")
    if high > 255 or len(colors) > 256:
        write_png(path, Image.fromarray(label_map.astype("uint16")))
        return
    picture = Image.fromarray(label_map.astype("uint8"))
    picture.putpalette(colors.tobytes())
    write_png(path, picture)


def write_png(path: str | os.PathLike, picture: "Image.Image | matplotlib.figure.Figure") -> None:
    """Write a picture beside `path`, marked as this package's, and rename it to `path`.

    Args:
        path: file to write.
        picture: `PIL.Image`, or `matplotlib.figure.Figure`, which is written at its
            own size and resolution.

    Raises:
        FileExistsError: when `path` holds a file that this package did not write.
    """
    path = Path(path)
    if path.exists() and not is_ours(path):
        raise FileExistsError(
            f"{str(path)!r} exists, and keras_fcn did not write it. Choose another output folder, "
            "or move the file."
        )
    with replacing(path) as beside:
        if isinstance(picture, Image.Image):
            mark = PngImagePlugin.PngInfo()
            mark.add_text("Software", "keras_fcn")
            picture.save(beside, format="PNG", pnginfo=mark)
        else:
            picture.savefig(beside, format="png", metadata={"Software": "keras_fcn"})


def is_ours(path):
    """Return whether a file is a picture that `write_png` wrote."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == "keras_fcn"
    except OSError:
        return False


def _legend(label_map, palette, classes, width):
    """Draw a swatch, name and share of each class that occurs, in as many rows as it takes."""
    counts = np.bincount(label_map.ravel(), minlength=len(classes))
    font = ImageFont.load_default(14)
    entries, x, row = [], 8, 0
    for label in np.argsort(-counts, kind="stable"):
        if counts[label] == 0:
            break
        text = f"{classes[label]} {counts[label] / label_map.size:.1%}"
        length = 24 + int(font.getlength(text)) + 16
        if x > 8 and x + length > width:
            x, row = 8, row + 1
        entries.append((x, row * LEGEND_ROW, tuple(palette[label].tolist()), text))
        x += length
    width = max(width, *(entry[0] + 40 + int(font.getlength(entry[3])) for entry in entries))
    picture = Image.new("RGB", (width, (row + 1) * LEGEND_ROW), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, color, text in entries:
        draw.rectangle((x, y + 5, x + 18, y + 18), fill=color, outline="black")
        draw.text((x + 24, y + 4), text, fill="black", font=font)
    return picture


def _stack(upper, lower):
    picture = Image.new(
        "RGB", (max(upper.width, lower.width), upper.height + lower.height), "white"
    )
    picture.paste(upper, (0, 0))
    picture.paste(lower, (0, upper.height))
    return picture
