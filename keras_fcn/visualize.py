"""Palettes, label maps as PNG files, overlays, maps of certainty, comparisons and curves.

Every function returns a Pillow image or a Matplotlib figure, and only `write_label_map`
and `write_png` write files. The architecture drawings are in `architecture.py`.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy.special import entr

LEGEND_ROW = 24  # pixels
PANEL = 3  # inches: the width of a panel of a figure
VOID_COLOR = (208, 208, 208)  # a gray that no palette has
ERROR_COLORS = ((255, 255, 255), (214, 30, 30))  # of right and of wrong pixels


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


PALETTES = {
    "voc_segmentation": voc_palette(21),
    "camvid": np.array(
        [
            (128, 128, 128),  # sky
            (128, 0, 0),  # building
            (192, 192, 128),  # pole
            (128, 64, 128),  # road
            (60, 40, 222),  # pavement
            (128, 128, 0),  # tree
            (192, 128, 128),  # sign
            (64, 64, 128),  # fence
            (64, 0, 128),  # car
            (64, 64, 0),  # pedestrian
            (0, 128, 192),  # bicyclist
        ],
        "uint8",
    ),
    "cityscapes": np.array(
        [
            (128, 64, 128),  # road
            (244, 35, 232),  # sidewalk
            (70, 70, 70),  # building
            (102, 102, 156),  # wall
            (190, 153, 153),  # fence
            (153, 153, 153),  # pole
            (250, 170, 30),  # traffic light
            (220, 220, 0),  # traffic sign
            (107, 142, 35),  # vegetation
            (152, 251, 152),  # terrain
            (70, 130, 180),  # sky
            (220, 20, 60),  # person
            (255, 0, 0),  # rider
            (0, 0, 142),  # car
            (0, 0, 70),  # truck
            (0, 60, 100),  # bus
            (0, 80, 100),  # train
            (0, 0, 230),  # motorcycle
            (119, 11, 32),  # bicycle
        ],
        "uint8",
    ),
}
"""The colours of the classes of data sets: uint8 arrays `(num_classes, 3)`, RGB.

The names of the data sets and the order of the classes are those of
`keras_fcn.datasets.SOURCES`.

Source: the VOC development kit; SegNet's tutorial, for its 11 classes of CamVid;
`cityscapesscripts/helpers/labels.py`, for its 19 training classes.
"""


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


def probability_map(probabilities, label):
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


def entropy_map(probabilities):
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


def paint(label_map, palette, ignore, void_color):
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

    >>> paint(np.array([[1, 255]]), voc_palette(2), 255, VOID_COLOR).tolist()
    [[[128, 0, 0], [208, 208, 208]]]
    """
    label_map = np.asarray(label_map)
    void = label_map == ignore
    labels = np.where(void, 0, label_map)
    if labels.min() < 0 or labels.max() >= len(palette):
        raise ValueError(
            f"The labels should be 0 to {len(palette) - 1}, or `ignore`. Received: "
            f"{labels.min()} to {labels.max()}, ignore={ignore}. Give a palette for all classes, "
            "or the label of void pixels as `ignore`."
        )
    return np.where(void[..., None], np.uint8(void_color), np.asarray(palette, "uint8")[labels])


def error_map(truth, prediction, ignore=None):
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
    wrong, void = _compare(truth, prediction, ignore)
    return Image.fromarray(paint(np.where(void, 2, wrong), ERROR_COLORS, 2, VOID_COLOR))


def _compare(truth, prediction, ignore):
    """Return where a prediction is wrong, and where the truth is void: two arrays (H, W)."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(
            "Truth and prediction should be label maps (height, width) of one shape. Received: "
            f"truth of {truth.shape}, prediction of {prediction.shape}. Probabilities become a "
            "label map by `.argmax(-1)`."
        )
    void = truth == ignore
    return (truth != prediction) & ~void, void


def comparison(rows, palette, classes, ignore=None):
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
    for line, row in zip(grid, rows, strict=True):
        _draw_row(line, *row, palette, ignore)
    entries = _legend_entries(rows, palette, classes, ignore)
    handles = [
        matplotlib.patches.Patch(facecolor=np.divide(color, 255), edgecolor="black", label=name)
        for name, color in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)))
    return figure


def _draw_row(line, image, truth, prediction, palette, ignore):
    """Show an image, its truth, prediction and errors in four axes."""
    wrong, void = _compare(truth, prediction, ignore)
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


def training_curves(log):
    """Draw the loss and the scores of a training run, epoch by epoch.

    Each quantity but the seconds has axes of its own, with a curve of the training and,
    where the log has it, one of the validation. Epochs are counted from 1.

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
    ...     _ = log.write_text("epoch,loss,val_loss\\n0,1.2,1.3\\n1,0.9,1.1\\n")
    ...     figure = training_curves(log)
    >>> [axes.get_title() for axes in figure.axes]
    ['loss']
    """
    matplotlib = load_matplotlib()
    columns = _read_log(Path(log))
    epochs = columns.pop("epoch") + 1
    columns.pop("seconds", None)
    quantities = list(dict.fromkeys(name.removeprefix("val_") for name in columns))
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


def load_matplotlib():
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

    Args:
        path: file to write.
        picture: `PIL.Image`, or `matplotlib.figure.Figure`, which is written at its
            own size and resolution.

    Raises:
        FileExistsError: when `path` holds a file that this package did not write.
    """
    path = Path(path)
    if path.exists() and not _is_ours(path):
        raise FileExistsError(
            f"{str(path)!r} exists, and keras_fcn did not write it. Choose another output folder, "
            "or move the file."
        )
    beside = path.with_name(f".{path.name}")
    if isinstance(picture, Image.Image):
        mark = PngImagePlugin.PngInfo()
        mark.add_text("Software", "keras_fcn")
        picture.save(beside, format="PNG", pnginfo=mark)
    else:
        picture.savefig(beside, format="png", metadata={"Software": "keras_fcn"})
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
