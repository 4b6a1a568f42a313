"""What is done in an output folder: so that the same run goes on, and another is refused."""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from keras_fcn.atomic import (
    as_json,
    open_table,
    parse_json,
    replacing,
    telling_full,
    write_json,
    write_rows,
)
from keras_fcn.inference.addresses import below

RECORD = "predictions.json"
TABLES = SUMMARY, OBJECTS, ERRORS = "summary.csv", "objects.csv", "errors.csv"


class Ledger:
    """The tables of an output folder. A line of the summary says that an image is done.

    Args:
        folder: existing folder of the predictions.
        run: what the predictions depend on, as JSON stores it.
        columns: names of the columns of the summary, after `file` and `image`.
        object_columns: names of the columns of the objects, after `file`; none without.
        is_current: function of the two, and of the files of all lines, that says whether a line
            still holds.
        place: what errors call the folder; its path, by default.

    Attributes:
        done: the files that are done.

    Raises:
        FileExistsError: when the folder holds predictions of another run.
    """

    def __init__(
        self,
        folder: Path,
        run: dict,
        columns: Sequence[str],
        object_columns: Sequence[str],
        is_current: Callable[[str, str, set], bool],
        place: Path | str | None = None,
    ):
        self.folder = folder
        self.place = folder if place is None else place
        self.columns, self.object_columns = ["file", "image", *columns], ["file", *object_columns]
        self.errors: dict[str, str] = {}
        self._check_run(run)
        lines = _read(folder / SUMMARY, self.columns)
        files = {line[0] for line in lines}
        lines = [line for line in lines if is_current(line[0], line[1], files)]
        self.done = {line[0] for line in lines}
        _write(folder / SUMMARY, self.columns, lines)
        if object_columns:
            lines = _read(folder / OBJECTS, self.object_columns)
            lines = [line for line in lines if line[0] in self.done]
            _write(folder / OBJECTS, self.object_columns, lines)
        (folder / ERRORS).unlink(missing_ok=True)  # what failed is tried again

    def add(self, image: str, lines: Sequence[Sequence], objects: Sequence[Sequence]) -> None:
        """Add an image that is done, with the lines of its objects first.

        Args:
            image: path of the image.
            lines: the file and the values of the columns, for each page.
            objects: the file and the values of the columns, for each object.
        """
        if objects:
            _append(self.folder / OBJECTS, objects)
        _append(self.folder / SUMMARY, [[file, image, *values] for file, *values in lines])

    def fail(self, file: str, error: str) -> None:
        """Set an image aside with its error."""
        line = [file, " ".join(error.split())]
        if self.errors:
            _append(self.folder / ERRORS, [line])
        else:
            _write(self.folder / ERRORS, ["file", "error"], [line])
        self.errors[file] = line[1]

    def sort(self, images: Sequence[str], names: Sequence[str]) -> None:
        """Put the lines in order, whoever was done first; those of other runs stay before.

        Args:
            images: paths of the images, as they are set aside.
            names: the files, of every page.
        """
        order = {name: number for number, name in enumerate(names)}
        for table, header in ((SUMMARY, self.columns), (OBJECTS, self.object_columns)):
            lines = _read(self.folder / table, header)
            ordered = sorted(lines, key=lambda line: order.get(line[0], -1))
            if ordered != lines:
                _write(self.folder / table, header, ordered)
        ordered = [image for image in images if image in self.errors]
        if ordered != list(self.errors):
            self.errors = {image: self.errors[image] for image in ordered}
            _write(self.folder / ERRORS, ["file", "error"], self.errors.items())

    def _check_run(self, run):
        path = self.folder / RECORD
        before = read_record(path)
        foreign = [path] if path.exists() else [self.folder / name for name in TABLES]
        if before is None and any(file.exists() for file in foreign):
            file = next(file for file in foreign if file.exists())
            raise FileExistsError(
                f"'{below(self.place, Path(file.name))}' exists, and keras_fcn did not write it. "
                "Choose another output folder, or move the file."
            )
        if before is None or not _holds_lines(self.folder / SUMMARY):
            write_json(path, run)  # nothing is done, by which another run could be known
            return
        check_same(self.place, "predictions", before, run)


def check_same(place: Path | str, what: str, before: dict, run: dict) -> None:
    """Raise where a place holds what another run has made.

    Args:
        place: what is there.
        what: "predictions", for the message.
        before: what these depend on, as it was stored.
        run: what those of this run do.

    Raises:
        FileExistsError: naming what differs.
    """
    run = as_json(run)
    differing = [name for name in run if before.get(name) != run[name]]
    if differing:
        name = differing[0]
        raise FileExistsError(
            f"'{place}' holds the {what} of another run, with other {', '.join(differing)}. "
            f"Received: {name}={_short(run[name])}, there {_short(before.get(name))}. Choose "
            "another output folder."
        )


def fingerprint(model: keras.Model) -> str:
    """Return the sha256 of all that a model's predictions depend on, in hexadecimal.

    These are its layers with their settings, among which are its classes and how their objects
    are found, and its weights.
    """
    settings = json.dumps(model.get_config(), sort_keys=True, default=str)
    digest = hashlib.sha256(settings.encode())
    for weight in model.weights:
        value = keras.ops.convert_to_tensor(weight)
        digest.update(keras.ops.convert_to_numpy(value).tobytes())
    return digest.hexdigest()


def read_record(path: Path) -> dict | None:
    """Return the record of a run before, or None where there is none of ours."""
    try:
        record = parse_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and "weights" in record else None


def _holds_lines(path):
    return path.is_file() and path.read_bytes().count(b"\n") > 1


def _short(value):
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 40 else repr(value)


def _read(path, header):
    """Return the whole lines below the header; a line cut short is none."""
    if not path.is_file():
        return []
    # what a spreadsheet has saved otherwise holds none of our lines
    with open_table(path) as file:
        text = file.read().replace("\0", "")
    whole = text[: text.rfind("\n") + 1]
    lines: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # a quote without its other swallows what follows
        lines.extend(csv.reader(io.StringIO(whole, newline="")))  # names may hold line breaks
    return [line for line in lines[1:] if len(line) == len(header)]


def _write(path, header, lines):
    with replacing(path) as beside, open_table(beside, "w") as file:
        write_rows(file, [header, *lines])


def _append(path, lines):
    with telling_full(path.parent, path), open_table(path, "a") as file:
        write_rows(file, lines)
