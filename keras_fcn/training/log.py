"""The log of a run: a row for each epoch, and what is done where some are damaged."""

import csv
import io
import math
import warnings

from keras_fcn.atomic import replacing

NAME = "log.csv"
MONITOR = "val_mean_iou"


def read_log(output):
    """Return {epoch, from 0: row} of the whole rows of the log, and whether others are damaged."""
    path = output / NAME
    if not path.exists():
        return {}, False
    text = path.read_bytes().decode("utf-8-sig", "replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = []
    try:
        rows.extend(reader)
    except csv.Error:  # a field without an end
        rows.append({})
    if not text.endswith("\n"):
        rows[-1:] = [{}]  # cut short
    whole = [row for row in rows if _is_whole(row)]
    return {int(row["epoch"]): row for row in whole}, len(whole) < len(rows)


def recover_log(output, epochs):
    """Return the rows of the first epochs; those that are lost have no scores.

    The last may be missing: a run can be stopped before it has its scores. What is damaged
    is kept beside.

    Args:
        output: path of the folder.
        epochs: number of epochs that were trained.

    Returns:
        List of the rows, and a list of the epochs that are lost.

    Warns:
        UserWarning: naming them.
    """
    known, damaged = read_log(output)
    last = epochs if epochs - 1 in known else max(0, epochs - 1)
    lost = [epoch for epoch in range(last) if epoch not in known]
    rows = [known.get(epoch, {"epoch": epoch, MONITOR: "nan"}) for epoch in range(last)]
    if lost or damaged:
        kept = f"It is kept as '{_set_aside(output)}'. " if damaged else ""
        numbers = ", ".join(str(epoch + 1) for epoch in lost)
        scores = f"Those of epoch {numbers} are nan" if lost else "Nothing is lost"
        warnings.warn(
            "The log should have a row of numbers for each epoch. Received: "
            f"'{output / NAME}', {'damaged' if damaged else 'without some'}. {kept}{scores} in "
            "the log from here on. If you have a copy of it, stop, put it back, and run the same "
            "command again.",
            stacklevel=2,
        )
    return rows, lost


def write_log(output, rows):
    """Write the rows of the log, whole at any time."""
    path = output / NAME
    if not rows:
        path.unlink(missing_ok=True)
        return
    names = dict.fromkeys(name for row in rows for name in row)
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="nan")
        writer.writeheader()
        writer.writerows(rows)


def best_epoch(rows):
    """Return the best mean IoU of the log and its epoch, from 0; None for an empty log."""
    scores = [(float(row[MONITOR]), -int(row["epoch"])) for row in rows]
    scores = [score for score in scores if not math.isnan(score[0])]
    if not scores:
        return None
    mean_iou, epoch = max(scores)  # the first of equal ones
    return mean_iou, -epoch


def total_seconds(rows):
    """Return the seconds that all epochs took, as far as they are known."""
    seconds = (float(row.get("seconds", "nan")) for row in rows)
    return sum(number for number in seconds if math.isfinite(number))


def _is_whole(row):
    """Whether a row has a number in every column, and nothing else."""
    try:
        numbers = [float(value) for value in row.values()]
        return row["epoch"].isdecimal() and MONITOR in row and bool(numbers)
    except (TypeError, ValueError, KeyError):
        return False


def _set_aside(output):
    """Copy the log, whatever it holds, to a name that is free; return its path."""
    number = 1
    while (path := output / f"log.damaged{number}.csv").exists():
        number += 1
    with replacing(path) as beside:
        beside.write_bytes((output / NAME).read_bytes())
    return path
