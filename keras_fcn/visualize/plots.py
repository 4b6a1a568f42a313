"""Maps of certainty, comparisons and curves."""

import math
import os
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import entr

from keras_fcn.visualize.palettes import VOID_COLOR
from keras_fcn.visualize.pictures import ERROR_COLORS, compare_labels, error_map, paint

if TYPE_CHECKING:
    import matplotlib.figure

PANEL = 3  # inches: the width of a panel of a figure
PER_CLASS = "val_iou_"  # before the name of a class, in the log of a training


def probability_map(probabilities: np.ndarray, label: int) -> Image.Image:
    """Show how probable a class is at every pixel, from violet (0) to yellow (1).

    Args:
        probabilities: float array `(height, width, num_classes)` in [0, 1], as
            `keras_fcn.predict_image` returns it.
        label: the class, 0 to `num_classes - 1`.

    Returns:
        `PIL.Image` in RGB, in Matplotlib's colours "viridis".

    Raises:
        ImportError: without Matplotlib.
        ValueError: for scores that are no probabilities, or a label that is no class.

    Example:

    >>> probability_map(np.full((20, 30, 4), 0.25), label=2).size
    (30, 20)
    """
    probabilities = _check_probabilities(probabilities)
    num_classes = probabilities.shape[-1]
    if label not in range(num_classes):
        raise ValueError(
            f"`label` should be a class, 0 to {num_classes - 1}. Received: label={label!r}"
        )
    return _color_map(probabilities[..., label], "viridis")


def entropy_map(probabilities: np.ndarray) -> Image.Image:
    """Show how uncertain a prediction is at every pixel, from black (0) to light yellow (1).

    The entropy is divided by the logarithm of the number of classes: 0 where one
    class has all the probability, 1 where all classes are equally probable.

    Args:
        probabilities: float array `(height, width, num_classes)` of two classes or
            more, with sum 1 at every pixel, as `keras_fcn.predict_image` returns it.

    Returns:
        `PIL.Image` in RGB, in Matplotlib's colours "magma".

    Raises:
        ImportError: without Matplotlib.
        ValueError: for scores that are no probabilities of two classes or more.

    Example:

    >>> entropy_map(np.full((20, 30, 4), 0.25)).size
    (30, 20)
    """
    probabilities = _check_probabilities(probabilities)
    num_classes = probabilities.shape[-1]
    sums = probabilities.sum(-1)
    if num_classes < 2 or abs(sums - 1).max() > 1e-3:
        raise ValueError(
            "The probabilities of two classes or more should add up to 1 at every pixel. Received: "
            f"{num_classes} classes with sums of {sums.min():.4g} to {sums.max():.4g}. For one "
            "sigmoid output pass `np.concatenate([1 - p, p], axis=-1)`."
        )
    return _color_map(entr(probabilities).sum(-1) / math.log(num_classes), "magma")


def _check_probabilities(probabilities):
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or probabilities.size == 0:
        raise ValueError(
            "`probabilities` should be an array (height, width, num_classes). Received: "
            f"shape={probabilities.shape}"
        )
    low, high = probabilities.min(), probabilities.max()
    if not (low >= 0 and high <= 1 + 1e-6):  # a NaN fails too
        raise ValueError(
            f"`probabilities` should be in [0, 1]. Received: values from {low:.4g} to {high:.4g}. "
            "For a model with `classifier_activation=None` apply `scipy.special.softmax(scores, "
            "axis=-1)` first."
        )
    return probabilities


def _color_map(values, name):
    """Return a picture of values (H, W) in [0, 1]."""
    colors = load_matplotlib().colormaps[name](values, bytes=True)  # (H, W, 4), RGBA
    return Image.fromarray(colors[..., :3].copy())


def comparison(
    rows: Sequence[tuple],
    palette: ArrayLike,
    classes: Sequence[str],
    ignore: int | None = None,
) -> "matplotlib.figure.Figure":
    """Draw images beside their truth, prediction and errors, with a legend of the classes.

    Below each error map stands the share of the labelled pixels that are wrong.

    Args:
        rows: list of (image, truth, prediction): uint8 array `(height, width, 3)` or
            `(height, width, 1)`, and two integer arrays `(height, width)` of classes.
        palette: uint8 array `(num_classes, 3)`, RGB, such as `PALETTES["camvid"]`.
        classes: names of the classes.
        ignore: the label of void pixels in the truth, or None.

    Returns:
        `matplotlib.figure.Figure`; the legend names the classes that occur.

    Raises:
        ImportError: without Matplotlib.
        ValueError: without rows, for maps of different shapes, or for labels that are
            neither a class nor `ignore`.

    Example:

    >>> from keras_fcn.visualize import PALETTES
    >>> image, truth = np.zeros((20, 30, 3), "uint8"), np.zeros((20, 30), int)
    >>> rows = [(image, truth, truth)]
    >>> figure = comparison(rows, PALETTES["camvid"][:2], ["sky", "building"])
    >>> [axes.get_title() for axes in figure.axes]
    ['image', 'truth', 'prediction', 'errors']
    """
    matplotlib = load_matplotlib()
    if not rows:
        raise ValueError("`rows` should hold one (image, truth, prediction) or more. Received: []")
    # inches; the panels of a row are as high as its image asks
    heights = [PANEL * image.shape[0] / image.shape[1] for image, _, _ in rows]
    figure = matplotlib.figure.Figure(
        (4 * PANEL, sum(heights) + 0.25 * len(rows) + 0.9), dpi=150, layout="compressed"
    )
    grid = figure.subplots(len(rows), 4, squeeze=False, height_ratios=heights)
    for axes, title in zip(grid[0], ("image", "truth", "prediction", "errors"), strict=True):
        axes.set_title(title)
    for line, (image, truth, prediction) in zip(grid, rows, strict=True):
        _draw_row(line, image, truth, prediction, palette, ignore)
    entries = _legend_entries(rows, palette, classes, ignore)
    handles = [
        matplotlib.patches.Patch(facecolor=np.divide(color, 255), edgecolor="black", label=name)
        for name, color in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)))
    return figure


def _draw_row(line, image, truth, prediction, palette, ignore):
    """Show an image, its truth, prediction and errors in four axes."""
    wrong, void = compare_labels(truth, prediction, ignore)
    panels = (
        np.broadcast_to(image, (*image.shape[:2], 3)),
        paint(truth, palette, ignore, VOID_COLOR),
        paint(prediction, palette, ignore, VOID_COLOR),
        error_map(truth, prediction, ignore),
    )
    for axes, panel in zip(line, panels, strict=True):
        axes.imshow(panel)
        axes.set(xticks=[], yticks=[])
    labelled = np.count_nonzero(~void)
    line[3].set_xlabel(f"{wrong.sum() / max(1, labelled):.1%} wrong")


def _legend_entries(rows, palette, classes, ignore):
    """Return the names and colours of the classes that occur, of errors, and of void if any."""
    labels = np.unique(np.concatenate([np.ravel(maps) for row in rows for maps in row[1:]]))
    entries = [(classes[label], palette[label]) for label in labels if label != ignore]
    entries.append(("wrong", ERROR_COLORS[1]))
    if ignore in labels:
        entries.append(("void", VOID_COLOR))
    return entries


def training_curves(log: str | os.PathLike) -> "matplotlib.figure.Figure":
    r"""Draw the loss and the scores of a training run, epoch by epoch.

    Each quantity but the seconds has axes of its own, with a curve of the training and,
    where the log has it, one of the validation; the IoU of all classes is in one. Epochs are
    counted from 1.

    Args:
        log: path of the CSV log of `keras_fcn.training.train`, or of any that
            `keras.callbacks.CSVLogger` wrote.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: without Matplotlib.
        FileNotFoundError: when there is no such file.
        ValueError: for an empty log, or a file of another form.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Path(folder, "log.csv")
    ...     _ = log.write_text("epoch,loss,val_loss\n0,1.2,1.3\n1,0.9,1.1\n")
    ...     figure = training_curves(log)
    >>> [axes.get_title() for axes in figure.axes]
    ['loss']
    """
    matplotlib = load_matplotlib()
    columns = _read_log(Path(log))
    epochs = columns.pop("epoch") + 1
    columns.pop("seconds", None)
    classes = [name for name in columns if name.startswith(PER_CLASS)]
    quantities = [name.removeprefix("val_") for name in columns if name not in classes]
    quantities = list(dict.fromkeys([*quantities, *["IoU of each class"][: len(classes)]]))
    quantities.sort(key=lambda name: name != "loss")  # the loss first
    width = min(3, len(quantities))
    height = math.ceil(len(quantities) / width)
    figure = matplotlib.figure.Figure((4 * width, 3 * height), dpi=100, layout="constrained")
    for place, quantity in enumerate(quantities, start=1):
        axes = figure.add_subplot(height, width, place, title=quantity, xlabel="epoch")
        axes.locator_params(axis="x", integer=True)
        for name, label in ((quantity, "training"), (f"val_{quantity}", "validation")):
            if name in columns:
                axes.plot(epochs, columns[name], marker=".", label=label)
        if quantity == "IoU of each class":
            for name in classes:
                axes.plot(epochs, columns[name], label=name.removeprefix(PER_CLASS))
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def _read_log(path):
    """Return {column: numbers} of a CSV log, NaN for what CSVLogger writes as NA."""
    header, *lines = path.read_text().splitlines() or [""]
    separator = header.removeprefix("epoch")[:1] or ","
    names = header.split(separator)
    if names[0] != "epoch" or "loss" not in names:
        raise ValueError(
            "The log should be a file of `keras.callbacks.CSVLogger`, with the columns epoch and "
            f"loss. Received: '{path}', whose first line is {header[:60]!r}. Pass the log.csv of a "
            "training run."
        )
    if not lines:
        raise ValueError(
            f"The log should hold one epoch or more. Received: '{path}', which has only the names "
            "of the columns. Wait for the first epoch to end."
        )
    try:
        numbers = np.loadtxt(lines, delimiter=separator, converters=_read_number, ndmin=2)
        return dict(zip(names, numbers.T, strict=True))
    except ValueError as error:
        raise ValueError(
            f"Each line of the log should hold {len(names)} numbers: {', '.join(names)}. Received: "
            f"'{path}': {error} Remove a line that was cut short."
        ) from error


def _read_number(text):
    return math.nan if text == "NA" else float(text)


def load_matplotlib() -> types.ModuleType:
    """Return Matplotlib, without pyplot and its global state.

    Raises:
        ImportError: when it is not installed; it says how to install it.
    """
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.patches
    except ImportError as error:
        raise ImportError(
            "Figures and colour maps are drawn by Matplotlib. Received: no such package. Install "
            "it: `pip install 'keras-fcn[figures]'`."
        ) from error
    return matplotlib
