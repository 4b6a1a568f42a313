"""A dense layer is a convolution: the mathematics, and models converted by it.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic
Segmentation, CVPR 2015, section 3.1.
"""

import bisect
import dataclasses
import functools
import math
import typing
from fractions import Fraction

import keras
import numpy as np
from keras import layers

from keras_fcn.arguments import check_positive_integer
from keras_fcn.private import copy_state, flat_layers, operation_of

# Layers whose output pixel depends on a window of the input, wherever it is.
WINDOWED = (
    layers.AveragePooling2D,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Cropping2D,
    layers.DepthwiseConv2D,
    layers.MaxPooling2D,
    layers.SeparableConv2D,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
)
ENLARGING = (layers.Conv2DTranspose, layers.UpSampling2D)
# Layers that relate positions to each other.
ACROSS_POSITIONS = (
    layers.AdditiveAttention,
    layers.Attention,
    layers.Bidirectional,
    layers.GroupQueryAttention,
    layers.MultiHeadAttention,
    layers.RNN,
)
# Layers that the classifier has for training only, and that change images without `Random`.
AUGMENTING = (layers.AugMix, layers.CutMix, layers.MixUp, layers.RandAugment)
# Pixels: a multiple of any stride there may be.
MULTIPLE = 2**10 * 3**3 * 5 * 7
# Settings of a dense layer that a convolution has too.
DENSE_SETTINGS = (
    "name",
    "trainable",
    "dtype",
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


def dense_to_conv(kernel: np.ndarray, kernel_size: int | tuple) -> np.ndarray:
    """Reshape the kernel of a dense layer into the kernel of the equal convolution.

    A dense layer on a flattened `height x width x channels` map has one weight
    for every pixel, channel and unit. So has a convolution whose kernel is as
    large as the map: it fits there in one position only, and computes the same
    sums. On a larger map it slides. Only where the map is a single pixel is
    that convolution 1x1.

    Keras flattens row by row, channels last, so the weights need no reordering.

    Args:
        kernel: array `(height * width * channels, units)`.
        kernel_size: `(height, width)` of the map that was flattened, or one
            integer for a square one.

    Returns:
        Array `(height, width, channels, units)`, of the kernel's dtype.

    Raises:
        ValueError: when the kernel's rows are no multiple of `height * width`.

    Source: Long et al. 2015, section 3.1 and figure 2.

    Example:

    >>> import numpy as np
    >>> fc6 = dense_to_conv(np.zeros((25088, 4096), "float16"), kernel_size=7)
    >>> fc6.shape
    (7, 7, 512, 4096)
    """
    sizes = list(np.ravel(np.asarray(kernel_size, object)))
    height, width = sizes * 2 if np.ndim(kernel_size) == 0 else sizes
    for size in (height, width):
        check_positive_integer("kernel_size", size)
    kernel = np.asarray(kernel)
    if kernel.ndim != 2 or kernel.shape[0] % (height * width):
        raise ValueError(
            "`kernel` should have the shape (height * width * channels, units), with "
            f"height={height} and width={width}. Received: kernel.shape={kernel.shape}"
        )
    return kernel.reshape(height, width, -1, kernel.shape[1])


def fully_convolutional(model: keras.Model) -> keras.Model:
    """Turn an image classifier of fixed size into one for images of any size.

    The new model slides the classifier over a larger image, all windows at
    once, with the layers they share computed once:

    - a `Dense` on a flattened map becomes a convolution with a kernel of the
      map's size, every later `Dense` a 1x1 convolution (see `dense_to_conv`);
    - global pooling becomes pooling over a window of the training size's map,
      with stride 1; where its result goes back into a map (squeeze and
      excitation) it stays global, over the whole image;
    - `Flatten`, and a `Reshape` that only adds or drops axes of size 1, go; a `Permute`
      before `Flatten` is taken into the kernel;
    - a layer with numbers of its own for each place of a flattened map (batch
      normalisation, PReLU) gets the pixels of each window side by side, as channels;
    - augmentation, which does nothing in inference, stays for training.

    Before the model is given back, it is compared with the classifier on random images.

    If no layer pads, `output[i, j]` is the classifier's output on the window of
    `model.window` pixels that begins at pixel `(i, j) * model.stride`, to
    rounding. (Where a stride does not divide a map the classifier drops its last
    pixels; a window that lacks only such pixels may come last.)

    Layers with `padding="same"` pad the image, not each window. At the training
    size the outputs agree too, but in a larger image a layer sees real pixels
    beyond the window's border, where the classifier saw zeros, and the scores
    differ, the more the deeper the network. A strided one places its padding by
    the image's size: sizes a multiple of the stride away from the training size
    keep its place.

    Args:
        model: Keras model, built, on images of one fixed size,
            `(height, width, channels)`. It may have branches, several inputs and
            outputs, shared layers and nested models. A subclass of `keras.Model` is
            followed through its `call`, which should use Keras layers and `keras.ops`.

    Returns:
        `keras.Model` on `(batch, height, width, channels)` of any size from
        the classifier's up, with the same layers by name, copies of the same
        weights, and outputs `(batch, rows, columns, classes)`. It has
        `window`, the classifier's `(height, width)` in pixels, and `stride`,
        the step in pixels from one output to the next, vertically and
        horizontally, a `Fraction` where the classifier enlarges its maps; for
        several outputs the list of theirs. These two are not saved with it:
        `window_of` finds them again.

    Raises:
        ValueError: naming the layer, where one can't slide: recurrence and
            attention over positions, a `Reshape` that mixes positions, a
            custom or `Lambda` layer that does not treat every pixel alike; where maps
            of different strides are joined; for layers with LoRA or quantised weights;
            and when the new model does not give what the classifier gives.

    Source: Long, Shelhamer and Darrell 2015, section 3.1; Sermanet et al.,
    OverFeat, 2014, section 3.5.

    Example:

    >>> classifier = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     keras.layers.Conv2D(6, 5, activation="tanh"),
    ...     keras.layers.AveragePooling2D(2),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(10, activation="softmax"),
    ... ])
    >>> model = fully_convolutional(classifier)
    >>> model.window, model.stride
    ((28, 28), (2, 2))
    >>> model(np.zeros((1, 40, 30, 1))).shape
    TensorShape([1, 7, 2, 10])
    """
    classifier, model = model, functional(model)
    _refuse_layers(model)
    starts = [_start(tensor) for tensor in model.inputs]
    converter = _Converter()
    converted, ends = converter.convert(model, starts)
    if converter.gates:  # found on the way: once more, with these pools left global
        converter = _Converter(converter.gates)
        converted, ends = converter.convert(model, starts)
    for refusal in converter.refusals:
        raise refusal
    for output, end in zip(model.outputs, ends, strict=True):
        if end.flat and (end.height, end.width) != (1, 1):
            name = operation_of(output).name
            raise _refusal(name, f"the model ends in a flattened {end.height}x{end.width} map")
    _check_equal(classifier, converted)
    converted.window = (starts[0].height, starts[0].width)
    strides = [tuple(map(_plain, end.stride)) for end in ends]
    converted.stride = strides[0] if len(strides) == 1 else strides
    return converted


def window_of(model: keras.Model) -> tuple:
    """Return where the outputs of a fully convolutional model are in the image.

    A model of `fully_convolutional` knows it. For one that was saved and loaded, and for any
    other, it follows from the sizes of the outputs: the stride exactly, and the window as
    the smallest image with an output, or as the multiple of the stride among the sizes with
    one output, if there is one: at most a stride too small.

    Args:
        model: Keras model with one input and one output, `(batch, rows, columns, any)`,
            for images of any size.

    Returns:
        `(window, stride)`: pairs of pixels, vertically and horizontally. The output in row
        `i` and column `j` belongs to the window that begins at pixel `(i, j) * stride`. The
        stride of a model that makes a map of the image's size is `(1, 1)`, and so is that
        of a model for images of one size.

    Raises:
        ValueError: for a model that makes no more outputs of a larger image.

    Example:

    >>> classifier = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     keras.layers.Conv2D(6, 5, strides=2),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> window_of(fully_convolutional(classifier))
    ((28, 28), (2, 2))
    """
    if hasattr(model, "window"):
        return model.window, model.stride
    if None not in model.input_shape[1:3]:
        return tuple(model.input_shape[1:3]), (1, 1)

    @functools.cache
    def output_size(axis, size):
        """Size of the output along an axis; 0 where the image is too small for a layer."""
        image = [size + MULTIPLE, size + MULTIPLE]  # that fits where the size does
        image[axis] = size
        try:
            return model.compute_output_shape((1, *image, model.input_shape[-1]))[1 + axis]
        except ValueError:
            return 0

    axes = [functools.partial(output_size, axis) for axis in (0, 1)]
    stride, sizes = zip(*(_stride_of(model, axis) for axis in axes), strict=True)
    window = tuple(map(_smallest_window, axes, stride, sizes))
    model.window, model.stride = window, stride
    return window, stride


def _stride_of(model, output_size):
    """Return the pixels from one output to the next, and the sizes that fit, small ones or not."""
    for rest in range(64):  # some networks take one size in 16
        smaller, larger = (output_size(times * MULTIPLE + rest) for times in (1, 2))
        if 0 < smaller < larger:
            fits = (step for step in range(1, 64) if output_size(MULTIPLE + rest + step) > 0)
            every = next(fits, 64)
            sizes = range(rest or every, 2**14, every)
            return _plain(Fraction(MULTIPLE, larger - smaller)), sizes
    raise ValueError(
        "A fully convolutional model makes more outputs of a larger image. Received: "
        f"{model.name!r}, which does not."
    )


def _plain(fraction):
    return int(fraction) if fraction.denominator == 1 else fraction


def _smallest_window(output_size, stride, sizes):
    smallest = sizes[bisect.bisect_left(sizes, 1, key=output_size)]
    multiple = -(-smallest // stride) * stride
    is_window = multiple == int(multiple) and output_size(int(multiple)) == 1
    return int(multiple) if is_window else smallest


def compare(model: keras.Model) -> "Comparison":
    """Set a classifier beside its fully convolutional form, layer by layer.

    Args:
        model: classifier that `fully_convolutional` takes.

    Returns:
        `Comparison`; printed, it is a table of the kernels' shapes, the
        parameters, which are equal, and their share of all, and below it the
        largest difference of the outputs on a random image of the training
        size with pixels in [0, 255].

    Raises:
        ValueError: where `fully_convolutional` raises it.

    Example:

    >>> classifier = keras.Sequential([
    ...     keras.Input((4, 4, 2)), keras.layers.Flatten(), keras.layers.Dense(3, name="fc")
    ... ])
    >>> [row] = compare(classifier).rows
    >>> row.dense_kernel, row.conv_kernel, row.parameters
    ((32, 3), (4, 4, 2, 3), 99)
    """
    converted = fully_convolutional(model)
    copies = _leaves(converted)
    rows = [
        Row(
            name,
            tuple(layer.kernel.shape) if isinstance(layer, layers.Dense) else None,
            tuple(copies[name].kernel.shape) if hasattr(copies[name], "kernel") else None,
            layer.count_params(),
        )
        for name, layer in _leaves(model).items()
        if layer.weights
    ]
    images = next(_random_images(functional(model)))
    outputs, new_outputs = (_outputs(network, images) for network in (model, converted))
    difference = float(abs(outputs - new_outputs).max())
    return Comparison(rows, model.count_params(), difference, float(abs(outputs).max()))


class Row(typing.NamedTuple):
    """One layer: its dense kernel if it had one, its convolution kernel, its parameters."""

    name: str
    dense_kernel: tuple | None
    conv_kernel: tuple | None
    parameters: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The layers of a classifier and of its fully convolutional form.

    Attributes:
        rows: list of `Row`, one for each layer with weights.
        parameters: number of parameters of either model.
        largest_difference: of their outputs, absolute.
        largest_output: the largest absolute output, to judge it by.
    """

    rows: list
    parameters: int
    largest_difference: float
    largest_output: float

    def __str__(self):
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{'layer':{width}}  {'dense':>12}  {'convolution':>16}  {'parameters':>12}  share"
        ]
        for row in self.rows:
            dense, conv = ("x".join(map(str, k or ())) for k in (row.dense_kernel, row.conv_kernel))
            share = row.parameters / self.parameters
            lines.append(
                f"{row.name:{width}}  {dense:>12}  {conv:>16}  {row.parameters:12,}  {share:5.1%}"
            )
        in_dense = sum(row.parameters for row in self.rows if row.dense_kernel)
        lines += [
            f"dense layers: {in_dense:,} of {self.parameters:,} parameters, "
            f"{in_dense / self.parameters:.1%}",
            f"largest difference of the outputs: {self.largest_difference:.1e}, "
            f"where the largest output is {self.largest_output:.1e}",
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Map:
    """What a tensor is in the classifier: a map `(height, width, channels)`.

    A flattened map stays one. `parts` are the channels of the maps flattened
    and then joined; `pools` the global pools that made it one pixel; `order` the axes
    of the map in the order in which the classifier has them.
    """

    height: int
    width: int
    parts: tuple
    flat: bool = False
    stride: tuple = (Fraction(1), Fraction(1))
    pools: frozenset = frozenset()
    order: tuple = (1, 2, 3)

    @property
    def shape(self):
        """Shape of the classifier's tensor."""
        sizes = (None, self.height, self.width, sum(self.parts))
        if self.flat:
            return (None, math.prod(sizes[1:]))
        return (None, *(sizes[axis] for axis in self.order))

    @property
    def is_permuted(self):
        return not self.is_pixel and self.order != (1, 2, 3)

    @property
    def is_pixel(self):
        return (self.height, self.width) == (1, 1)


class _Converter:
    """Copies a model's graph call by call, remembering what each new tensor stands for."""

    def __init__(self, gates=()):
        self.known_gates = frozenset(gates)
        self.gates = set()
        self.refusals = []  # of merges that only gates may make
        self.maps = {}  # id of a new tensor -> (the tensor, kept alive; its _Map)
        self.copies = {}  # by id of the layer, so that shared layers stay shared

    def convert(self, model, starts):
        """Return the new model, and what its outputs stand for."""
        inputs = [
            keras.Input(
                (None, None, sum(start.parts)),
                dtype=tensor.dtype,
                name=operation_of(tensor).name,
            )
            for tensor, start in zip(model.inputs, starts, strict=True)
        ]
        for tensor, start in zip(inputs, starts, strict=True):
            self.remember(tensor, start)
        converted = keras.models.clone_model(
            model,
            input_tensors=keras.tree.pack_sequence_as(model.input, inputs),
            clone_function=lambda layer: layer,
            call_function=self.call,
        )
        return converted, [self.maps[id(tensor)][1] for tensor in converted.outputs]

    def remember(self, tensor, stands_for):
        self.maps[id(tensor)] = (tensor, stands_for)
        return tensor

    def call(self, layer, *args, **kwargs):
        """Call the copy of a layer on new tensors in place of old ones."""
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if id(x) in self.maps]
        maps = [self.maps[id(tensor)][1] for tensor in tensors]
        if isinstance(layer, keras.Model):
            return self.call_nested(layer, tensors, maps)
        if isinstance(layer, layers.Permute) and len(maps[0].shape) == 4:
            return self.permute(layer, tensors[0], maps[0])
        if isinstance(layer, (layers.Flatten, layers.Reshape)):
            return self.reshape(layer, tensors[0], maps[0])
        if isinstance(layer, layers.Dense) and maps[0].flat:
            return self.dense(layer, tensors[0], maps[0])
        if _is_global_pool(layer):
            return self.global_pool(layer, tensors[0], maps[0])
        if len(maps) == 1 and self.has_numbers_for_places(layer, maps, args):
            args = (self.unroll(layer, tensors[0], maps[0]),)
            maps = [self.maps[id(args[0])][1]]
        stands_for = self.follow(layer, maps, args, kwargs)
        copy = self.copies.setdefault(id(layer), _copy(layer, maps[0]))
        output = copy(*args, **kwargs)
        _copy_state(layer, copy)
        return self.remember(output, stands_for)

    def call_nested(self, model, tensors, maps):
        key = (id(model), *maps)
        if key not in self.copies:
            shapes = [start.shape for start in maps]
            self.copies[key] = self.convert(functional(model, shapes), maps)
        copy, ends = self.copies[key]
        outputs = copy(tensors[0] if len(tensors) == 1 else tensors)
        for tensor, end in zip(keras.tree.flatten(outputs), ends, strict=True):
            self.remember(tensor, end)
        return outputs

    def permute(self, layer, tensor, start):
        """Keep only the name of a layer that brings a map's axes into another order."""
        order = tuple(start.order[axis - 1] for axis in layer.dims)
        copy = self.copies.setdefault(id(layer), layers.Identity(name=layer.name))
        return self.remember(copy(tensor), dataclasses.replace(start, order=order))

    def has_numbers_for_places(self, layer, maps, args):
        """Whether a layer treats the places of a flattened map each in its own way."""
        (start,) = maps
        is_map = start.flat and not start.is_pixel and isinstance(layer, keras.Layer)
        return is_map and not self.treats_pixels_alike(layer, maps, args)

    def unroll(self, layer, tensor, start):
        """Put the pixels of each window side by side, as channels, in the order of `Flatten`."""
        if start.is_permuted or len(start.parts) > 1:
            raise _refusal(layer.name, "it does not treat every pixel alike")
        height, width = start.height, start.width
        places = [
            layers.Cropping2D(
                ((row, height - 1 - row), (column, width - 1 - column)),
                name=f"{layer.name}_window_{row}_{column}",
            )(tensor)
            for row in range(height)
            for column in range(width)
        ]
        windows = layers.Concatenate(name=f"{layer.name}_windows")(places)
        channels = height * width * start.parts[0]
        end = dataclasses.replace(start, height=1, width=1, parts=(channels,))
        return self.remember(windows, end)

    def reshape(self, layer, tensor, start):
        """Keep only the name of a layer that flattens, or adds or drops axes of size 1."""
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise _refusal(layer.name, "it flattens channels first")
        shape = layer.compute_output_shape(start.shape)
        for flat in (True, False):
            end = dataclasses.replace(start, flat=flat)
            if start.is_permuted and not flat:
                continue
            if end.shape == tuple(shape) and (flat or len(start.parts) == 1):
                # a new tensor, for the map may be used both flat and as it is
                copy = self.copies.setdefault(id(layer), layers.Identity(name=layer.name))
                return self.remember(copy(tensor), end)
        raise _refusal(layer.name, f"it mixes positions: {start.shape[1:]} to {tuple(shape[1:])}")

    def dense(self, layer, tensor, start):
        """A convolution with a kernel of the size of the map that was flattened."""
        size = (start.height, start.width)
        config = {k: value for k, value in layer.get_config().items() if k in DENSE_SETTINGS}
        config |= {"filters": layer.units, "kernel_size": size}
        copy = self.copies.setdefault(id(layer), layers.Conv2D.from_config(config))
        if copy.kernel_size != size:
            raise _refusal(layer.name, "it is shared by maps of different sizes")
        output = copy(tensor)

        def fit(array, _):
            is_kernel = array.ndim == 2
            return _part_kernels(array, size, start.parts, start.order) if is_kernel else array

        copy_state(layer, copy, fit)
        end = dataclasses.replace(start, height=1, width=1, parts=(layer.units,), order=(1, 2, 3))
        return self.remember(output, end)

    def global_pool(self, layer, tensor, start):
        """Pooling over a sliding window; or over all, where a gate in the network asks for it."""
        config = {"name": layer.name, "dtype": layer.get_config()["dtype"]}
        is_average = "Average" in type(layer).__name__
        keepdims = getattr(layer, "keepdims", True)
        if id(layer) in self.known_gates:
            pooling = layers.GlobalAveragePooling2D if is_average else layers.GlobalMaxPooling2D
            copy = pooling.from_config(config | {"keepdims": True})
        else:
            size = (start.height, start.width)
            pooling = layers.AveragePooling2D if is_average else layers.MaxPooling2D
            copy = pooling.from_config(config | {"pool_size": size, "strides": 1})
        if start.is_permuted:
            raise _refusal(layer.name, "the axes of its map are permuted")
        copy = self.copies.setdefault((id(layer), start.height, start.width), copy)
        end = dataclasses.replace(
            start, height=1, width=1, flat=not keepdims, pools=start.pools | {id(layer)}
        )
        return self.remember(copy(tensor), end)

    def follow(self, layer, maps, args, kwargs):
        """Return what the output of a layer stands for; raise if the layer can't slide."""

        def original(x):
            if id(x) not in self.maps:
                return x
            return keras.KerasTensor(self.maps[id(x)][1].shape, dtype=x.dtype)

        output = layer.compute_output_spec(*keras.tree.map_structure(original, args), **kwargs)
        shape = tuple(getattr(output, "shape", ()))
        first = max(maps, key=lambda start: start.height * start.width)
        flat = len(shape) == 2
        stride, parts = first.stride, (shape[-1],)
        self.check_merge(layer, maps)
        inner = layer.layer if isinstance(layer, layers.SpectralNormalization) else layer
        if isinstance(inner, WINDOWED):
            if inner.data_format != "channels_last":
                raise _refusal(layer.name, "its data format is channels first")
            stride = _stride_after(inner, stride)
        elif isinstance(layer, layers.Concatenate):
            if layer.axis not in (-1, len(shape) - 1):
                raise _refusal(layer.name, "it joins maps along their height or width")
            if flat and len({(start.height, start.width) for start in maps}) > 1:
                raise _refusal(layer.name, "it joins flattened maps of different sizes")
            parts = sum((start.parts for start in maps), ())
        elif not is_augmentation(layer) and not (
            len(shape) in (2, 4) and self.treats_pixels_alike(layer, maps, args)
        ):
            raise _refusal(layer.name, "it does not treat every pixel alike")
        elif flat:
            parts = first.parts if shape == first.shape else parts

        height, width = (first.height, first.width) if flat else shape[1:3]
        pools = frozenset().union(*(start.pools for start in maps))
        if (height, width) != (1, 1):  # a pooled pixel has gone back into a map
            self.gates |= set().union(*(start.pools for start in maps if start.is_pixel))
            pools = frozenset()
        if flat and (height, width) != (1, 1):
            return _Map(height, width, parts, True, stride, order=first.order)
        return _Map(height, width, (sum(parts),), flat, stride, pools)

    def check_merge(self, layer, maps):
        """Refuse what a layer can't do: permuted maps, and maps that grow apart with the image."""
        if len({start.order for start in maps}) > 1 or any(
            start.is_permuted and not start.flat for start in maps
        ):
            raise _refusal(layer.name, "the axes of its map are permuted")
        sliding = [start for start in maps if not start.pools or start.pools - self.known_gates]
        alike = {(start.height, start.width) for start in sliding}
        if len({start.stride for start in sliding}) > 1 and len(alike) == 1:
            self.refusals.append(
                _refusal(layer.name, "it joins maps of different strides, which fit at one size")
            )

    def treats_pixels_alike(self, layer, maps, args):
        """Try the layer on random maps: does a crop of them give the crop of the output?

        Where a flattened map is still to be cut up by a `Dense`, the numbers of
        a pixel should be treated alike too, so channels are cropped as well.
        """
        rng = np.random.default_rng(0)
        larger_than_pixel = any(not start.is_pixel for start in maps)
        cut = np.s_[:, 1:, 2:, 1 if any(s.flat and not s.is_pixel for s in maps) else 0 :]

        def sample(x):
            if id(x) not in self.maps:
                return x
            start = self.maps[id(x)][1]
            size = (1, 1) if start.is_pixel and larger_than_pixel else (3, 4)
            return rng.normal(size=(2, *size, sum(start.parts))).astype("float32")

        def crop(x):
            return x[cut] if isinstance(x, np.ndarray) and x.shape[1:3] == (3, 4) else x

        def vector(x):
            return x[:, 1, 2] if isinstance(x, np.ndarray) else x

        whole = keras.tree.map_structure(sample, args)
        try:
            copy = _copy(layer, maps[0])
            copy(*whole)  # builds it
            _copy_state(layer, copy)
            result = copy(*whole)
            alike = [(copy(*keras.tree.map_structure(crop, whole)), result[cut])]
            if all(start.flat and start.is_pixel for start in maps):
                # these are vectors in the classifier
                vectors = keras.tree.map_structure(vector, whole)
                alike.append((layer(*vectors), result[:, 1, 2]))
            return all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in alike)
        except Exception:  # whatever a layer of other people's raises on maps of other sizes
            return False


def functional(model, shapes=None):
    """Return a model as a functional one; raise `ValueError` if it has no graph.

    Args:
        model: Keras model. A subclass is followed through its `call`.
        shapes: of a subclass's inputs, with the batch; by default those it was built with.
    """
    if isinstance(model, keras.Sequential) and getattr(model, "inputs", None):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if getattr(model, "inputs", None):
        return keras.Model(model.input, model.output, name=model.name)
    if shapes is None and getattr(model, "built", False):
        built = getattr(model, "_build_shapes_dict", None) or {}
        shapes = list(built.values())
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential) or not shapes:
        raise ValueError(
            "`model` should be a built Sequential or functional Keras model, or a subclass. "
            f"Received: {model!r}. Give it an `Input`, or call it on an image: "
            "`model(np.zeros((1, height, width, channels)))`."
        )
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    try:
        outputs = model.call(inputs[0] if len(inputs) == 1 else inputs)
        return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=model.name)
    except Exception as error:  # whatever the code of others raises on a graph
        raise ValueError(
            "A subclass of `keras.Model` should be made of Keras layers and `keras.ops`, to be "
            f"followed through its `call`. Received: {model.name!r}, of {type(model).__name__}, "
            f"which raises {error}. Build it as `keras.Model(inputs, outputs)`."
        ) from error


def _start(tensor):
    """What an input of the classifier is; raise if it is no image of fixed size."""
    shape = tensor.shape
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "Every input of the classifier should be an image of fixed size (height, width, "
            f"channels). Received: {tensor.name!r} of shape {tuple(shape[1:])}. Build the "
            "classifier with the `input_shape` it was trained with."
        )
    return _Map(shape[1], shape[2], (shape[3],))


def _leaves(model, prefix=""):
    """Return the layers of a model and of the models nested in it, by name."""
    leaves = {}
    for layer in model.layers:
        name = prefix + layer.name
        leaves |= _leaves(layer, f"{name}/") if isinstance(layer, keras.Model) else {name: layer}
    return leaves


def is_augmentation(layer):
    """Whether a layer is one of Keras's that change images in training, and not their size."""
    kind = type(layer)
    is_random = kind.__name__.startswith("Random") and kind is not layers.RandomCrop
    return kind in AUGMENTING or (is_random and kind is getattr(layers, kind.__name__, None))


def _is_global_pool(layer):
    """Whether a layer makes one pixel of any map."""
    adaptive = (layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D)
    if isinstance(layer, adaptive):
        return tuple(layer.output_size) == (1, 1)
    return isinstance(layer, (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D))


def _refuse_layers(model):
    """Refuse layers that relate positions, and weights that are not all that is computed with."""
    for layer in _leaves(model).values():
        if isinstance(layer, ACROSS_POSITIONS):
            raise _refusal(layer.name, f"a {type(layer).__name__} relates positions to each other")
        for part in flat_layers(layer) if isinstance(layer, keras.Layer) else ():
            if getattr(part, "lora_enabled", False):
                raise _refusal(layer.name, "it has LoRA's weights, which come after converting")
            if getattr(part, "quantization_mode", None) or getattr(part, "_is_quantized", False):
                raise _refusal(
                    layer.name, "its weights are quantised, which comes after converting"
                )


def _check_equal(classifier, converted):
    """Raise `ValueError` unless both give the same for random images of the training size."""
    for images in _random_images(functional(classifier)):
        expected, received = (_outputs(model, images) for model in (classifier, converted))
        nudged = keras.tree.map_structure(
            lambda image: (image * (1 + 2.0**-20)).astype(image.dtype), images
        )
        rounding = abs(_outputs(classifier, nudged) - expected).max()
        # float32 alone: half precision rounds the two orders of summing apart
        single = all(layer.compute_dtype == "float32" for layer in _leaves(converted).values())
        bound = (1e-3 if single else 0.1) * abs(expected).max() + 10 * rounding
        difference = abs(expected - received).max() if expected.shape == received.shape else np.inf
        if np.isfinite(expected).all() and not difference <= bound:
            raise ValueError(
                "The fully convolutional model should give what the classifier gives. Received: "
                f"{classifier.name!r}, where they differ by {difference:.1e}, and the largest "
                f"output is {abs(expected).max():.1e}. A layer of it computes with something "
                "that it does not save, or changes from call to call; convert the part before it."
            )


def _random_images(model):
    """Yield inputs for a functional model: random images in [0, 255], and in [0, 1]."""
    rng = np.random.default_rng(0)
    for largest in (255, 1):
        images = [
            rng.uniform(0, largest, (1, *tensor.shape[1:])).astype(tensor.dtype)
            for tensor in model.inputs
        ]
        yield keras.tree.pack_sequence_as(model.input, images)


def _outputs(model, images):
    """Return all outputs of a model as one vector."""
    outputs = keras.tree.flatten(model(images, training=False))
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(output)) for output in outputs])


def _refusal(name, reason):
    return ValueError(
        "A fully convolutional model needs layers that do the same wherever the window is. "
        f"Received: the layer {name!r}, but {reason}. Convert the part of the model before it, or "
        "replace it."
    )


def _copy(layer, start):
    """A new layer of the same settings, with its last axis the last of maps too."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, layers.Lambda):
        return layer  # without a state; and a Lambda can't be copied
    config, rank = layer.get_config(), len(start.shape)
    if config.get("axis") in (rank - 1, [rank - 1], (rank - 1,)):
        config["axis"] = -1
    if isinstance(layer, layers.PReLU) and start.is_pixel:
        config["shared_axes"] = [1, 2]
    return type(layer).from_config(config)


def _copy_state(layer, copy):
    """Give a copy all that its layer saves."""
    if copy is not layer and isinstance(layer, keras.Layer):
        copy_state(layer, copy, _fit)


def _fit(array, layer):
    """Return a saved array, that of PReLU in the shape that maps need."""
    return array.reshape(layer.alpha.shape) if isinstance(layer, layers.PReLU) else array


def _stride_after(layer, stride):
    """Pixels of the image from one output of a layer to the next."""
    steps = getattr(layer, "strides", None) or getattr(layer, "size", (1, 1))
    if isinstance(layer, ENLARGING):
        steps = [Fraction(1, step) for step in steps]
    return tuple(a * b for a, b in zip(stride, steps, strict=True))


def _part_kernels(kernel, size, parts, order):
    """Kernel of the convolution for flattened maps of `parts` channels, one after the other.

    `order` are the axes of each map, 1 its rows, 2 its columns, 3 its channels, as they were
    flattened.
    """
    ends = np.cumsum(parts) * math.prod(size)
    kernels = []
    for rows, channels in zip(np.split(kernel, ends[:-1]), parts, strict=True):
        sizes = (*size, channels)
        permuted = rows.reshape(*(sizes[axis - 1] for axis in order), -1)
        kernels.append(permuted.transpose(*np.argsort(order), 3).reshape(rows.shape))
    return np.concatenate([dense_to_conv(rows, size) for rows in kernels], axis=2)
