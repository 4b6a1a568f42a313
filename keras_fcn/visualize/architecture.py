"""Drawings of the package's networks, in which every map is a box to scale.

A network is read from its Keras graph: the path from the image by way of the deepest
map to the output, and the skips that merge into it. Lengths are in points, 1/72 of an
inch, x to the right and y upwards.
"""

import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING

from keras_fcn.visualize.maps import (
    COPIED,
    SCORES,
    Map,
    check_image_shape,
    check_model,
    read_maps,
)
from keras_fcn.visualize.plots import load_matplotlib

if TYPE_CHECKING:
    import keras
    import matplotlib.figure

LARGEST = 150  # height of the largest map
SMALLEST = 3  # height of the smallest maps
DOUBLING = 2.5  # width that a box gains when its channels double
ARROW = 22  # least distance of two boxes in a row
DROP = 18  # length of an arrow from row to row
MARGIN = 12
FONT = 8
LINE = 1.3 * FONT
LEGEND_ARROW = 22
LABELS = 8  # least distance of two labels
SIGN = 12  # room for a plus sign

EDGE = "#2b4a6b"
# of the arrows: each kind of operation, and the variants of it that a network has
COLORS = {
    "convolution": ("#1f4e9c", "#00838f", "#7b3fa0", "#b0368c"),
    "pooling": ("#c62828",),
    "upsampling": ("#2e7d32", "#8a9a1b"),
    "skip": ("#777777", "#a1887f"),
    "frame": ("#ef6c00", "#6d4c41"),
}


def draw_architecture(
    model: "keras.Model", input_shape: tuple[int, int, int]
) -> "matplotlib.figure.Figure":
    r"""Draw a U-Net or an FCN with the sizes that its maps have for an image of this shape.

    Every map is a box: its height follows the map's height, its width the logarithm
    of the channels. The channels are written above it, height and width below, 572²
    for 572x572. A U-Net is drawn as a U; an FCN as a trunk that goes down block by
    block, and its scores that come up and are added to those of the skips. White boxes
    are copies, orange ones hold a score for each class. Dashed lines mark what is left
    of a map after a crop, or the image within its border; maps that are cropped to fit
    a skip are drawn cropped.

    Args:
        model: model of `UNet`, `FCN32s`, `FCN16s`, `FCN8s` or `FCN8sAtOnce`, built or
            loaded.
        input_shape: `(height, width, channels)` of the image, integers.

    Returns:
        `matplotlib.figure.Figure`, as large as the drawing needs.

    Raises:
        ImportError: without Matplotlib.
        ValueError: for another model, or an image that the model does not take.

    Source: Ronneberger, Fischer and Brox 2015, figure 1.

    Example:

    >>> from keras_fcn import UNet
    >>> model = UNet(filters=(8, 16, 32), padding="valid")
    >>> figure = draw_architecture(model, (92, 92, 3))
    >>> [text.get_text() for text in figure.axes[0].texts][:4]
    ['image\n3', '92²', '8', '90²']
    """
    matplotlib = load_matplotlib()
    check_model(model)
    check_image_shape(model, input_shape)
    maps = read_maps(model, input_shape)
    boxes = _place(maps)
    colors = _choose_colors(maps)
    legend = _place_legend(colors, boxes)
    figure, axes = _make_canvas(matplotlib, boxes, legend)
    for box in boxes:
        _draw_box(axes, box)
    for before, after in itertools.pairwise(boxes):
        _draw_step(axes, before, after, colors)
        if after.map.skip:
            _draw_skip(axes, boxes[after.map.skip.source], after, colors)
    for x, y, text, color in legend:
        _draw_arrow(axes, (x, y), (x + LEGEND_ARROW, y), color)
        _write(axes, x + LEGEND_ARROW + 5, y, text, va="center_baseline", ha="left")
    return figure


@dataclasses.dataclass
class _Box:
    map: Map
    x: float  # of its centre
    y: float
    width: float
    height: float

    @property
    def top_label(self):
        channels = self.map.shape[2]
        if self.map.skip and not self.map.skip.is_added:
            channels += self.map.skip.shape[2]
        return _label(self.map.caption, channels)

    @property
    def size_label(self):
        return _label_size(self.map.shape)

    @property
    def label_width(self):
        return _measure(f"{self.top_label}\n{self.size_label}")

    @property
    def top(self):
        """Above the label."""
        return self.y + self.height / 2 + LINE * len(self.top_label.splitlines()) + 3

    @property
    def bottom(self):
        """Below the label."""
        return self.y - self.height / 2 - LINE - 3

    @property
    def skip_width(self):
        return _width(self.map.skip.shape[2])

    @property
    def skip_x(self):
        """The centre of the map of its skip, to the left."""
        skip = self.map.skip
        distance = (self.width + self.skip_width) / 2
        if skip.is_added:
            labels = _measure(_label(skip.caption, skip.shape[2])) + self.label_width
            distance = max(distance + SIGN, labels / 2 + LABELS)
        return self.x - distance


def _label(caption, channels):
    return f"{caption}\n{channels}".strip()


def _label_size(shape):
    height, width, _ = shape
    return f"{height}²" if height == width else f"{height}x{width}"


@functools.cache
def _measure(text):
    """Return how wide a text of one line or more is."""
    from matplotlib.textpath import TextPath

    return max(TextPath((0, 0), line, size=FONT).get_extents().width for line in text.splitlines())


def _width(channels):
    return DOUBLING * math.log2(1 + channels)


def _place(maps):
    """Return the boxes of the maps: rows from the top, in each from the left."""
    scale = LARGEST / max(map_.shape[0] for map_ in maps)
    boxes = []
    for map_ in maps:
        height = max(SMALLEST, scale * map_.shape[0])
        box = _Box(map_, 0, 0, _width(map_.shape[2]), height)
        if boxes:
            box.x = boxes[-1].x
        if boxes and map_.is_beside:
            widths = (boxes[-1].width + box.width) / 2 + ARROW
            labels = (boxes[-1].label_width + box.label_width) / 2 + LABELS
            box.x += max(widths, labels)
        boxes.append(box)
    y = 0
    for row in range(max(map_.row for map_ in maps) + 1):
        in_row = [box for box in boxes if box.map.row == row]
        y -= max(box.top for box in in_row)
        for box in in_row:
            box.y = y
        y = min(box.bottom for box in in_row) - DROP
    return boxes


def _choose_colors(maps):
    """Return {operation: colour}, in the order in which the operations occur."""
    variants = {kind: iter(colors) for kind, colors in COLORS.items()}
    colors = {}
    for map_ in maps:
        for operation in (map_.operation, map_.skip and map_.skip.operation):
            if operation and operation not in colors:
                colors[operation] = next(variants[operation[0]])
    return colors


def _place_legend(colors, boxes):
    """Return (x, y, text, colour) of each operation, in rows below the boxes."""
    right = max(box.x + box.label_width / 2 for box in boxes)
    x, y = boxes[0].x, min(box.bottom for box in boxes) - DROP
    legend = []
    for (_, text), color in colors.items():
        length = LEGEND_ARROW + 5 + _measure(text) + 3 * LABELS
        if x > boxes[0].x and x + length > right:
            x, y = boxes[0].x, y - 1.5 * LINE
        legend.append((x, y, text, color))
        x += length
    return legend


# The drawing


def _make_canvas(matplotlib, boxes, legend):
    """Return a figure and its axes, whose units are points."""
    left = boxes[0].x - boxes[0].label_width / 2 - MARGIN
    right = max(
        *(box.x + box.label_width / 2 for box in boxes),
        *(x + LEGEND_ARROW + 5 + _measure(text) for x, _, text, _ in legend),
    )
    top = max(box.top for box in boxes) + MARGIN
    bottom = legend[-1][1] - LINE / 2 - MARGIN
    width, height = right + MARGIN - left, top - bottom
    figure = matplotlib.figure.Figure((width / 72, height / 72), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, left + width), ylim=(bottom, top))
    axes.set_axis_off()
    return figure, axes


def _draw_box(axes, box):
    map_ = box.map
    _draw_map(axes, box.x, box.y, box.width, box.height, map_.color)
    left, right = box.x - box.width / 2, box.x + box.width / 2
    if map_.kept:
        first, rows = map_.kept
        for row in (first, first + rows):
            y = box.y + box.height * (0.5 - row / map_.shape[0])
            axes.plot([left, right], [y, y], color=EDGE, linewidth=0.8, linestyle=(0, (2, 1.5)))
    middle = box.x
    if map_.skip:
        middle = _draw_arrival(axes, box)
    _write(axes, middle, box.y + box.height / 2 + 2, box.top_label, va="bottom")
    _write(axes, middle, box.y - box.height / 2 - 3, box.size_label, va="top")


def _draw_arrival(axes, box):
    """Draw the map of a skip left of the box; return the middle of what the box's labels name."""
    skip, x = box.map.skip, box.skip_x
    _draw_map(axes, x, box.y, box.skip_width, box.height, SCORES if skip.is_added else COPIED)
    if not skip.is_added:
        return (x - box.skip_width / 2 + box.x + box.width / 2) / 2
    label = _label(skip.caption, skip.shape[2])
    _write(axes, x, box.y + box.height / 2 + 2, label, va="bottom")
    _write(axes, x, box.y - box.height / 2 - 3, _label_size(skip.shape), va="top")
    between = (x + box.skip_width / 2 + box.x - box.width / 2) / 2
    _write(axes, between, box.y, "+", va="center", fontsize=1.4 * FONT)
    return box.x


def _draw_map(axes, x, y, width, height, color):
    corners = [x - width / 2, x + width / 2, x + width / 2, x - width / 2]
    levels = [y - height / 2, y - height / 2, y + height / 2, y + height / 2]
    axes.fill(corners, levels, facecolor=color, edgecolor=EDGE, linewidth=0.8)


def _draw_step(axes, before, after, colors):
    """Draw the arrow from a box to the next, or the equals sign of a sum."""
    if after.map.is_beside:
        start = (before.x + before.width / 2, before.y)
        end = (after.x - after.width / 2, after.y)
    elif after.y < before.y:
        start, end = (before.x, before.bottom), (after.x, after.top)
    else:
        start, end = (before.x, before.top), (after.x, after.bottom)
    if after.map.operation:
        _draw_arrow(axes, start, end, colors[after.map.operation])
    else:
        _write(axes, (start[0] + end[0]) / 2, start[1], "=", va="center", fontsize=1.4 * FONT)


def _draw_skip(axes, source, box, colors):
    start = (source.x + source.width / 2, source.y)
    end = (box.skip_x - box.skip_width / 2, box.y)
    _draw_arrow(axes, start, end, colors[box.map.skip.operation])


def _draw_arrow(axes, start, end, color):
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.3, "mutation_scale": 8}
    axes.annotate("", end, start, arrowprops={**style, "shrinkA": 1.5, "shrinkB": 1.5})


def _write(axes, x, y, text, va, ha="center", fontsize=FONT):
    axes.text(x, y, text, ha=ha, va=va, fontsize=fontsize, linespacing=1.1)
