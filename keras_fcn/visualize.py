"""Palettes, label maps as PNG files, and overlays with a legend."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

LEGEND_ROW = 24  # pixels


def voc_palette(num_classes):
    """Return the PASCAL VOC colours.

    Args:
        num_classes: number of classes, at most 256.

    Returns:
        uint8 array `(num_classes, 3)`, RGB; the first is black.

    Source: the VOC development kit, `VOClabelcolormap`: the bits of the class
    number, lowest first, are the highest bits of red, green and blue in turn.

    Example:

    >>> voc_palette(3).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    classes = np.arange(num_classes)[:, None]
    channels = np.arange(3)
    return sum(((classes >> (3 * bit + channels)) & 1) << (7 - bit) for bit in range(8)).astype(
        "uint8"
    )


def overlay(image, label_map, palette, classes, opacity=0.5):
    """Lay the colours of the classes over an image, with a legend below.

    Args:
        image: uint8 array `(height, width, 3)` or `(height, width, 1)`.
        label_map: integer array `(height, width)` of classes.
        palette: uint8 array `(num_classes, 3)`, RGB.
        classes: names of the classes.
        opacity: share of the colour, 0 to 1.

    Returns:
        `PIL.Image` in RGB; the legend names the classes that occur, with their
        share of the pixels, the largest first.
    """
    palette = np.asarray(palette, "uint8")
    blended = (1 - opacity) * image + opacity * palette[label_map]
    picture = Image.fromarray(blended.round().astype("uint8"))
    return _stack(picture, _legend(label_map, palette, classes, picture.width))


def write_label_map(path, label_map, palette):
    """Write a label map as a palette PNG, whose pixel values are the classes.

    The file is written beside `path` and then renamed.

    Args:
        path: file to write.
        label_map: integer array `(height, width)`, values in [0, 255].
        palette: uint8 array `(num_classes, 3)`, RGB.
    """
    picture = Image.fromarray(label_map.astype("uint8"), mode="P")
    picture.putpalette(np.asarray(palette, "uint8").tobytes())
    write_png(path, picture)


def write_png(path, picture):
    """Write a picture beside `path`, marked as this package's, and rename it to `path`.

    Raises:
        FileExistsError: when `path` holds a file that this package did not write.
    """
    path = Path(path)
    if path.exists() and not _is_ours(path):
        raise FileExistsError(
            f"{str(path)!r} exists, and keras_fcn did not write it. Choose another output folder, "
            "or move the file."
        )
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", "keras_fcn")
    beside = path.with_name(f".{path.name}")
    picture.save(beside, format="PNG", pnginfo=mark)
    beside.replace(path)


def _is_ours(path):
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
