"""Which pixels of the image an output pixel sees, by arithmetic over the graph of the layers.

Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill,
2019, do so for networks that only get coarser. Here maps may get finer again: then the pixels
of a map do not all see alike, and what they see repeats with a period.
"""

import contextlib
import dataclasses
import math
import typing
from fractions import Fraction

import keras
from keras import layers

from keras_fcn.convolutionize import functional
from keras_fcn.layers import CropLike
from keras_fcn.receptive_rules import WINDOWS, check_layer, refusal

# An image large enough for every layer; only numbers are computed with it.
LARGE = 2**10 * 3**3 * 5 * 7 * 11


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the image that reach an output pixel; each pair is vertical, horizontal.

    Attributes:
        size: height and width in pixels of a window that holds all that any output pixel
            sees. (After upsampling the pixels see different parts of it; `window` has
            each one's.)
        stride: pixels of the image from one output pixel to the next; a fraction where the
            output is finer than the image.
        offset: first row and column of that window, relative to the output pixel's number
            times the stride. -93 is 93 pixels above.
        alignment: the least number of pixels by which an image can be shifted so that the
            output is shifted too, and nothing else.
        before: rows above and columns left of output pixel times stride that a tile needs.
        after: rows below and columns right of it.
        layers: list of `Row`, one for each layer, in the order of computation.
        phases: what the pixels of one period see: for each axis a tuple of (first, last).

    Printed, it is a table of the layers.
    """

    size: tuple
    stride: tuple
    offset: tuple
    alignment: tuple
    before: tuple
    after: tuple
    layers: list = dataclasses.field(repr=False, compare=False)
    phases: tuple = dataclasses.field(repr=False, compare=False)

    def window(self, row: int, column: int) -> tuple:
        """Return `((top, bottom), (left, right))`: the first and last pixels that one sees.

        The bounds do not end at the image's border; beyond it are no pixels to see. None in
        place of a pair: the output pixel sees nothing of the image.
        """
        seen = []
        for phases, stride, index in zip(self.phases, self.stride, (row, column), strict=True):
            period, phase = divmod(index, len(phases))
            first, last = phases[phase]
            shift = int(period * len(phases) * stride)
            seen.append((first + shift, last + shift) if first <= last else None)
        return tuple(seen)

    def tile(self, start: int, stop: int, size: int, axis: int) -> tuple:
        """Return the rows (or columns) of the image from which a piece of the result is made.

        The model's output on the image's pixels `begin` to `end` holds, from its pixel
        `start - begin / stride` on, exactly what the output on the whole image holds at
        `start` to `stop`. For that a tile begins on a multiple of the alignment and ends
        whole alignments before the image's end (or begins and ends where the image does): a
        strided layer with `padding="same"` then pads the tile as it pads the image, which
        depends on the size.

        Args:
            start, stop: the output pixels wanted, `stop` excluded.
            size: height (or width) of the whole image.
            axis: 0 for rows, 1 for columns.

        Returns:
            `(begin, end)`, `end` excluded.
        """
        stride, alignment = self.stride[axis], self.alignment[axis]
        first = math.floor(start * stride) - self.before[axis]
        last = math.floor((stop - 1) * stride) + self.after[axis]
        begin = max(0, first // alignment * alignment)
        end = size - max(0, (size - 1 - last) // alignment * alignment)
        return begin, end

    def __str__(self):
        width = max(len(row.name) for row in self.layers)
        lines = [f"{'layer':{width}}  {'sees':>11}  {'every':>9}  {'from':>11}"]
        for row in self.layers:
            size, stride, offset = (
                "x".join(map(str, pair)) if pair[0] != pair[1] else str(pair[0])
                for pair in (row.size, row.stride, row.offset)
            )
            lines.append(f"{row.name:{width}}  {size:>11}  {stride:>9}  {offset:>11}")
        lines.append("sees: pixels of the image that reach one of the layer's; every: pixels from")
        lines.append("one to the next; from: where they begin, relative to its place; each height")
        lines.append("x width, or one number for both.")
        return "\n".join(lines)


class Row(typing.NamedTuple):
    """One layer: the size, stride and offset of what its pixels see."""

    name: str
    size: tuple
    stride: tuple
    offset: tuple


def receptive_field(model: keras.Model) -> ReceptiveField:
    """Compute which pixels of the image an output pixel of a model sees.

    It is arithmetic over the graph, exact, and computes no map: convolutions and pooling of
    any stride, dilation and padding, transposed convolutions, upsampling, padding and
    cropping, branches that are added or joined, nested models, and layers that treat each
    pixel by itself. An image of no certain size is taken to have one that `alignment`
    divides; `before` and `after` hold for every size that the model takes.

    Args:
        model: functional or Sequential model from one or more images of one size,
            `(batch, height, width, channels)`, to one map `(batch, rows, columns, any)`.

    Returns:
        `ReceptiveField`.

    Raises:
        ValueError: naming the layer, where pixels far apart meet (global pooling, attention,
            flattened maps, statistics over height and width, resizing to a fixed size), and
            for `Lambda` and custom layers, of which nothing is known.

    Example:

    >>> from keras_fcn import UNet
    >>> field = receptive_field(UNet(padding="valid"))
    >>> field.size, field.stride, field.offset, field.alignment
    ((215, 215), (1, 1), (-15, -15), (16, 16))
    >>> field.window(0, 0)
    ((0, 187), (0, 187))
    """
    graph = functional(model)
    if len(graph.outputs) != 1:
        raise ValueError(
            f"A receptive field is that of one output. Received: {model.name!r} with "
            f"{len(graph.outputs)}. Pass `keras.Model(model.inputs, model.outputs[0])`."
        )
    rows, columns = (_Axis(graph, axis) for axis in (0, 1))
    table = [
        Row(name, *zip(_window(vertical), _window(horizontal), strict=True))
        for (name, vertical), (_, horizontal) in zip(rows.layers, columns.layers, strict=True)
    ]
    size, stride, offset = zip(_window(rows.output), _window(columns.output), strict=True)
    return ReceptiveField(
        size,
        stride,
        offset,
        alignment=(rows.alignment, columns.alignment),
        before=(rows.before, columns.before),
        after=(rows.after, columns.after),
        layers=table,
        phases=tuple(
            tuple((phase.first, phase.last) for phase in axis.output.phases)
            for axis in (rows, columns)
        ),
    )


def maps_fit(model: keras.Model, size: tuple[int, int]) -> bool:
    """Return whether the maps that a model merges are of one size, for images of this size.

    True also where a layer is unknown.

    Example:

    >>> image = keras.Input((None, None, 3))
    >>> half = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D()(image))
    >>> model = keras.Model(image, keras.layers.Add()([image, half]))
    >>> maps_fit(model, (4, 6)), maps_fit(model, (4, 5))
    (True, False)
    """
    try:
        graph = functional(model)
        for axis, side in enumerate(size):
            _Walk(axis, side, kind=_Size).run(graph)
    except _MisfitError:
        return False
    except ValueError:  # of a layer that has no receptive field
        return True
    return True


class _Axis:
    """A model's maps along one axis, for images of every size that it takes.

    Attributes:
        layers: list of (name, `_Map`), one for each layer.
        output: the `_Map` of the output.
        alignment, before, after: as of `ReceptiveField`, of this axis.
    """

    def __init__(self, graph, axis):
        walk = _Walk(axis, LARGE, checks_sizes=False)
        walk.run(graph)
        self.alignment = math.lcm(*(reach.stride.numerator for _, reach in walk.layers))
        walks = []
        for image in self._images(graph, axis):
            walk = _Walk(axis, image)
            with contextlib.suppress(_MisfitError):
                walk.run(graph)
                walks.append(walk)
        if not walks:
            raise ValueError(
                "A receptive field is that of a model whose maps fit together where they are "
                f"merged. Received: {graph.name!r}, in which they do at no size of the image."
            )
        self.layers, self.output = walks[0].layers, walks[0].output
        margins = [walk.output.margins() for walk in walks]
        self.before, self.after = (max(margin) for margin in zip(*margins, strict=True))

    def _images(self, graph, axis):
        """Sizes of large images that leave every rest in which padding may differ."""
        first = -(-LARGE // self.alignment) * self.alignment
        fixed = next((tensor.shape[1 + axis] for tensor in graph.inputs), None)
        rests = range(self.alignment) if fixed is None else [fixed % self.alignment]
        return [first + rest for rest in rests]


class _Phase(typing.NamedTuple):
    """What one pixel of a map needs of the image, along one axis.

    It sees the pixels `first` to `last`; inf and -inf if none. A tile that holds `begin` to
    `end` as well has all pixels on the way on its own maps.
    """

    first: float
    last: float
    begin: int
    end: int

    def shifted(self, pixels):
        return _Phase(*(bound + pixels for bound in self))


@dataclasses.dataclass(frozen=True)
class _Map:
    """A map along one axis.

    Attributes:
        image: size of the image, pixels.
        size: size of the map, pixels.
        stride: pixels of the image from one pixel of the map to the next.
        phases: tuple of `_Phase`, for the pixels of one period.
    """

    image: int
    size: int
    stride: Fraction = Fraction(1)
    phases: tuple = (_Phase(0, 0, 0, 0),)

    def at(self, pixel):
        period, phase = divmod(pixel, len(self.phases))
        return self.phases[phase].shifted(int(period * len(self.phases) * self.stride))

    def derive(self, size, taps, step=1):
        """Return the map of `size` pixels of which pixel `j` is made from the pixels `taps(j)`."""
        if size < 1:
            raise _MisfitError
        made = dataclasses.replace(self, size=size, stride=self.stride * step)
        period = (len(self.phases) / Fraction(step)).numerator
        phases = [
            made.join(pixel, [self.at(tap) for tap in taps(pixel)]) for pixel in range(period)
        ]
        return dataclasses.replace(made, phases=tuple(phases))

    def merge(self, others):
        """Return the map whose pixels are made from the same pixels of this one and others."""
        maps = (self, *others)
        period = math.lcm(*(len(one.phases) for one in maps))
        phases = [self.join(pixel, [one.at(pixel) for one in maps]) for pixel in range(period)]
        return dataclasses.replace(self, phases=tuple(phases))

    def join(self, pixel, sources):
        """Return what a pixel needs that is made from others."""
        # a tile's map begins where the tile does, and ends as long before as the tile does
        begin = math.floor(pixel * self.stride)
        end = math.floor(self.image + (pixel - self.size) * self.stride)
        return _Phase(
            min([source.first for source in sources], default=math.inf),
            max([source.last for source in sources], default=-math.inf),
            min([begin, *(min(source.first, source.begin) for source in sources)]),
            max([end, *(max(source.last, source.end) for source in sources)]),
        )

    def margins(self):
        """Return the pixels that a tile needs before and after pixel times stride."""
        places = [math.floor(pixel * self.stride) for pixel in range(len(self.phases))]
        before = max(p - phase.begin for p, phase in zip(places, self.phases, strict=True))
        after = max(phase.end - p for p, phase in zip(places, self.phases, strict=True))
        return before, after


class _Size(_Map):
    """The size of a map and its stride alone, where nobody asks what its pixels see."""

    def derive(self, size, _taps, step=1):
        if size < 1:
            raise _MisfitError
        return _Size(self.image, size, self.stride * step)

    def merge(self, _others):
        return self


class _MisfitError(Exception):
    """The model takes no image of this size."""


class _Walk:
    """Follows the graph of a model from the image to the output, along one axis."""

    def __init__(self, axis, image, checks_sizes=True, kind=_Map):
        self.axis = axis
        self.kind = kind
        self.image = image
        self.checks_sizes = checks_sizes
        self.layers = []
        self.output = None

    def run(self, graph):
        for tensor in graph.inputs:
            if len(tensor.shape) != 4:
                raise ValueError(
                    "A receptive field is that of a model on images (batch, height, width, "
                    f"channels). Received: {graph.name!r}, whose input {tensor.name!r} has the "
                    f"shape {tuple(tensor.shape)}."
                )
        (self.output,) = self.follow(graph, [self.kind(self.image, self.image)] * len(graph.inputs))

    def follow(self, graph, maps, prefix=""):
        """Return the maps of the outputs of a model, nested or whole."""
        known = {id(tensor): one for tensor, one in zip(graph.inputs, maps, strict=True)}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                sources = [known[id(tensor)] for tensor in node.input_tensors]
                name = prefix + node.operation.name
                if isinstance(node.operation, keras.Model):
                    nested = _functional_of(node.operation, name)
                    made = self.follow(nested, sources, f"{name}/")
                else:
                    made = [self.through(node, name, sources)] * len(node.outputs)
                    self.layers.append((name, made[0]))
                known |= {id(tensor): one for tensor, one in zip(node.outputs, made, strict=True)}
        return [known[id(tensor)] for tensor in graph.outputs]

    def through(self, node, name, sources):
        """Return the map that a layer makes; raise `ValueError` if pixels far apart meet in it."""
        layer = node.operation
        if isinstance(layer, layers.SpectralNormalization):
            layer = layer.layer  # in inference nothing else
        if type(layer) in (CropLike, layers.Concatenate) or len(sources) > 1:
            self.check_merge(layer, name, sources)
        check_layer(layer, name, node)
        if type(layer) in WINDOWS:
            return WINDOWS[type(layer)](layer, sources[0], self.axis)
        if type(layer) is CropLike:
            return sources[0].derive(sources[1].size, lambda j: [j + layer.offset])
        return sources[0].merge(sources[1:])

    def check_merge(self, layer, name, sources):
        if len({source.stride for source in sources}) > 1:
            raise refusal(name, "it merges maps of different strides")
        sizes = {source.size for source in sources}
        if self.checks_sizes and type(layer) is not CropLike and len(sizes) > 1:
            raise _MisfitError


def _functional_of(model, name):
    try:
        return functional(model)
    except ValueError as error:
        raise refusal(name, "it is a model without a graph") from error


def _window(reach):
    """Return size, stride and offset of a window that holds what any pixel of a map sees."""
    places = [pixel * reach.stride for pixel in range(len(reach.phases))]
    seen = [
        (p, phase)
        for p, phase in zip(places, reach.phases, strict=True)
        if phase.first <= phase.last
    ]
    offset = min(math.floor(phase.first - place) for place, phase in seen)
    end = max(math.ceil(phase.last - place) for place, phase in seen)
    return end - offset + 1, _plain(reach.stride), offset


def _plain(fraction):
    return int(fraction) if fraction.denominator == 1 else fraction
