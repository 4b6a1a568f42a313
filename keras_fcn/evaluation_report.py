"""What an evaluation writes: the scores of each image, the worst ones as a picture, errors."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_fcn.atomic import open_table, parse_json, replacing, write_json, write_rows
from keras_fcn.inference.pictures import draw_outlines, to_bytes
from keras_fcn.lock import locked
from keras_fcn.visualize import VOID_COLOR, error_map, paint, write_png

RECORD, SCORES, ERRORS, WORST = "evaluation.json", "scores.csv", "errors.csv", "worst.png"
SHOWN = 8  # images in the picture
PANEL = 320  # largest side of one of its panels, pixels
LINE, GAP = 22, 4  # pixels: the height of a line of text, between panels


class Report:
    """The files of an evaluation in a folder, written at its end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: list[dict] = []  # {column: text} of each image
        self.worst: list[tuple] = []  # (score, caption, panels) of the lowest scores, in order

    def add(self, name: str, scores: Mapping, rank: str, panels: Sequence | None):
        """Add an image.

        Args:
            name: of the image.
            scores: {name: number}, NaN for what does not occur.
            rank: name of the score of which the lowest are shown.
            panels: `PIL.Image` of the image, its truth and its prediction, where `takes`.
        """
        numbers = {key: "" if math.isnan(x) else f"{x:.6g}" for key, x in scores.items()}
        self.lines.append({"file": name, **numbers})
        score = scores[rank]
        if self.takes(score):
            title = rank.replace("_", " ").replace("iou", "IoU").replace("f1", "F1")
            caption = f"{name}: {title} {score:.3f}"
            self.worst.append((score, caption, panels))
            self.worst.sort(key=lambda entry: entry[0])
            del self.worst[SHOWN:]

    def takes(self, score: float) -> bool:
        """Return whether an image of a score is among the worst so far."""
        room = len(self.worst) < SHOWN
        return not math.isnan(score) and (room or score < self.worst[-1][0])

    def write(self, scores: Mapping, legend: Mapping) -> None:
        """Write the files.

        Args:
            scores: what `keras_fcn.evaluate` returns.
            legend: {name of a class: its colour}.
        """
        write_json(self.folder / RECORD, without_nan(scores))
        columns = list(self.lines[0]) if self.lines else ["file"]
        rows = [list(line.values()) for line in self.lines]
        _write_table(self.folder / SCORES, [columns, *rows])
        for name in (ERRORS, WORST):
            (self.folder / name).unlink(missing_ok=True)  # of an evaluation before
        if failed := scores.get("failed"):
            errors = [[name, " ".join(error.split())] for name, error in failed.items()]
            _write_table(self.folder / ERRORS, [["file", "error"], *errors])
        if self.worst:
            write_png(self.folder / WORST, _draw(self.worst, legend))


@contextlib.contextmanager
def open_report(folder: str | os.PathLike) -> Iterator[Report]:
    """Yield the report of a folder, in which nobody else writes meanwhile.

    Raises:
        FileExistsError: when another process is at work in it, or it holds a file that no
            evaluation wrote.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_ours(folder)
        yield Report(folder)


def without_nan(scores):
    """Return scores as JSON has them: None for what does not exist, NaN here."""
    if isinstance(scores, Mapping):
        return {name: without_nan(item) for name, item in scores.items()}
    return None if isinstance(scores, float) and math.isnan(scores) else scores


def paint_panels(image, truth, prediction, palette, ignore) -> list[Image.Image]:
    """Return pictures of an image, its truth, its prediction and what is wrong, for a report.

    Args:
        image: array `(height, width, channels)`.
        truth, prediction: integer arrays `(height, width)` of classes.
        palette: uint8 array `(num_classes, 3)`.
        ignore: the label of void pixels in the truth, or None.
    """
    image, truth, prediction = map(_sample, (image, truth, prediction))
    maps = (paint(labels, palette, ignore, VOID_COLOR) for labels in (truth, prediction))
    return [_to_rgb(image), *map(Image.fromarray, maps), error_map(truth, prediction, ignore)]


def outline_panels(image, truth, prediction) -> list[Image.Image]:
    """Return pictures of an image, and of the outlines of true and predicted objects in it."""
    image, *maps = map(_sample, (image, truth, prediction))
    return [_to_rgb(image), *(draw_outlines(to_bytes(image), objects) for objects in maps)]


def _sample(array):
    """Return an array (H, W, ...) with at most PANEL rows and columns, the nearest ones."""
    scale = min(1, PANEL / max(array.shape[:2]))
    counts = [max(1, round(side * scale)) for side in array.shape[:2]]
    places = (
        ((np.arange(count) + 0.5) * (side / count)).astype(int)
        for side, count in zip(array.shape, counts, strict=False)
    )
    return array[np.ix_(*places)]


def _to_rgb(image):
    pixels = to_bytes(image if image.ndim == 3 else image[..., None])
    return Image.fromarray(np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels)


def _check_ours(folder):
    """Raise for files that would be replaced, and that are not of an evaluation before."""
    try:
        record = parse_json((folder / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        record = None
    ours = isinstance(record, dict) and "images" in record
    taken = [name for name in (RECORD, SCORES, ERRORS, WORST) if (folder / name).exists()]
    if taken and not ours:
        raise FileExistsError(
            f"'{folder / taken[0]}' exists, and no evaluation of keras_fcn wrote it. Choose "
            "another output folder, or move the file."
        )


def _write_table(path, rows):
    with replacing(path) as beside, open_table(beside, "w") as file:
        write_rows(file, rows)


def _draw(worst, legend):
    """Return the picture of the worst images: each a row of panels below its caption."""
    titles = ("image", "truth", "prediction", "errors")[: len(worst[0][2])]
    rows = [_draw_row(caption, panels) for _, caption, panels in worst]
    return _stack([_draw_text(" | ".join(titles)), *_draw_legend(legend), *rows])


def _draw_row(caption, panels):
    return _stack([_draw_text(caption), _join(panels)])


def _draw_legend(legend):
    """Return lines of colours with their names, about as wide as a row."""
    lines, line = [], []
    for name, color in legend.items():
        swatch = Image.new("RGB", (LINE, LINE), "white")
        ImageDraw.Draw(swatch).rectangle((3, 3, 18, 18), fill=tuple(color), outline="black")
        entry = _join([swatch, _draw_text(name)])
        if line and sum(known.width + GAP for known in line) + entry.width > 3 * PANEL:
            lines, line = [*lines, _join(line)], []
        line.append(entry)
    return [*lines, *([_join(line)] if line else [])]


def _draw_text(text):
    font = ImageFont.load_default(14)
    picture = Image.new("RGB", (int(font.getlength(text)) + 9, LINE), "white")
    ImageDraw.Draw(picture).text((3, 2), text, fill="black", font=font)
    return picture


def _join(parts):
    """Return a picture of pictures side by side."""
    width = sum(part.width + GAP for part in parts)
    picture = Image.new("RGB", (width, max(part.height for part in parts)), "white")
    left = 0
    for part in parts:
        picture.paste(part, (left, 0))
        left += part.width + GAP
    return picture


def _stack(parts):
    """Return a picture of pictures below each other."""
    height = sum(part.height + GAP for part in parts)
    picture = Image.new("RGB", (max(part.width for part in parts), height), "white")
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height + GAP
    return picture
