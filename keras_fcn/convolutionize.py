"""A dense layer is a convolution: the mathematics, and models converted by it.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic
Segmentation, CVPR 2015, section 3.1.
"""

import dataclasses
import math
import typing
from fractions import Fraction

import keras
import numpy as np
from keras import layers

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


def dense_to_conv(kernel, kernel_size):
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
    height, width = (kernel_size, kernel_size) if np.ndim(kernel_size) == 0 else kernel_size
    kernel = np.asarray(kernel)
    if kernel.ndim != 2 or kernel.shape[0] % (height * width):
        raise ValueError(
            "`kernel` should have the shape (height * width * channels, units), with "
            f"height={height} and width={width}. Received: kernel.shape={kernel.shape}"
        )
    return kernel.reshape(height, width, -1, kernel.shape[1])


def fully_convolutional(model):
    """Turn an image classifier of fixed size into one for images of any size.

    The new model slides the classifier over a larger image, all windows at
    once, with the layers they share computed once:

    - a `Dense` on a flattened map becomes a convolution with a kernel of the
      map's size, every later `Dense` a 1x1 convolution (see `dense_to_conv`);
    - global pooling becomes pooling over a window of the training size's map,
      with stride 1; where its result goes back into a map (squeeze and
      excitation) it stays global, over the whole image;
    - `Flatten`, and a `Reshape` that only adds or drops axes of size 1, go.

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
        model: `Sequential` or functional Keras model, built, on images of one
            fixed size, `(height, width, channels)`. It may have branches,
            several inputs and outputs, shared layers and nested models.

    Returns:
        `keras.Model` on `(batch, height, width, channels)` of any size from
        the classifier's up, with the same layers by name, copies of the same
        weights, and outputs `(batch, rows, columns, classes)`. It has
        `window`, the classifier's `(height, width)` in pixels, and `stride`,
        the step in pixels from one output to the next, vertically and
        horizontally; for several outputs the list of theirs. These two are not
        saved with it.

    Raises:
        ValueError: naming the layer, where one can't slide: recurrence and
            attention over positions, a `Reshape` that mixes positions, a
            custom or `Lambda` layer that does not treat every pixel alike.

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
    model = functional(model)
    _refuse_layers_across_positions(model)
    starts = [_start(tensor) for tensor in model.inputs]
    converter = _Converter()
    converted, ends = converter.convert(model, starts)
    if converter.gates:  # found on the way: once more, with these pools left global
        converted, ends = _Converter(converter.gates).convert(model, starts)
    for output, end in zip(model.outputs, ends, strict=True):
        if end.flat and (end.height, end.width) != (1, 1):
            name = output._keras_history.operation.name
            raise _refusal(name, f"the model ends in a flattened {end.height}x{end.width} map")
    converted.window = (starts[0].height, starts[0].width)
    strides = [tuple(int(step) for step in end.stride) for end in ends]
    converted.stride = strides[0] if len(strides) == 1 else strides
    return converted


def compare(model):
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
    rng = np.random.default_rng(0)
    images = [
        rng.uniform(0, 255, (1, *tensor.shape[1:])).astype("float32") for tensor in model.inputs
    ]
    images = keras.tree.pack_sequence_as(functional(model).input, images)
    outputs, new_outputs = (
        np.concatenate([np.ravel(output) for output in keras.tree.flatten(network(images))])
        for network in (model, converted)
    )
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
    and then joined; `pools` the global pools that made it one pixel.
    """

    height: int
    width: int
    parts: tuple
    flat: bool = False
    stride: tuple = (Fraction(1), Fraction(1))
    pools: frozenset = frozenset()

    @property
    def shape(self):
        """Shape of the classifier's tensor."""
        channels = sum(self.parts)
        if self.flat:
            return (None, self.height * self.width * channels)
        return (None, self.height, self.width, channels)

    @property
    def is_pixel(self):
        return (self.height, self.width) == (1, 1)


class _Converter:
    """Copies a model's graph call by call, remembering what each new tensor stands for."""

    def __init__(self, gates=()):
        self.known_gates = frozenset(gates)
        self.gates = set()
        self.maps = {}  # id of a new tensor -> (the tensor, kept alive; its _Map)
        self.copies = {}  # by id of the layer, so that shared layers stay shared

    def convert(self, model, starts):
        """Return the new model, and what its outputs stand for."""
        inputs = [
            keras.Input(
                (None, None, sum(start.parts)),
                dtype=tensor.dtype,
                name=tensor._keras_history.operation.name,
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
        if isinstance(layer, (layers.Flatten, layers.Reshape)):
            return self.reshape(layer, tensors[0], maps[0])
        if isinstance(layer, layers.Dense) and maps[0].flat:
            return self.dense(layer, tensors[0], maps[0])
        if isinstance(layer, (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)):
            return self.global_pool(layer, tensors[0], maps[0])
        stands_for = self.follow(layer, maps, args, kwargs)
        copy = self.copies.setdefault(id(layer), _copy(layer, rank=len(maps[0].shape)))
        output = copy(*args, **kwargs)
        _copy_weights(layer, copy)
        return self.remember(output, stands_for)

    def call_nested(self, model, tensors, maps):
        key = (id(model), *maps)
        if key not in self.copies:
            self.copies[key] = self.convert(functional(model), maps)
        copy, ends = self.copies[key]
        outputs = copy(tensors[0] if len(tensors) == 1 else tensors)
        for tensor, end in zip(keras.tree.flatten(outputs), ends, strict=True):
            self.remember(tensor, end)
        return outputs

    def reshape(self, layer, tensor, start):
        """Keep only the name of a layer that flattens, or adds or drops axes of size 1."""
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise _refusal(layer.name, "it flattens channels first")
        shape = layer.compute_output_shape(start.shape)
        for flat in (True, False):
            end = dataclasses.replace(start, flat=flat)
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
        kernel, *bias = layer.get_weights()
        copy.set_weights([_part_kernels(kernel, size, start.parts), *bias])
        end = dataclasses.replace(start, height=1, width=1, parts=(layer.units,))
        return self.remember(output, end)

    def global_pool(self, layer, tensor, start):
        """Pooling over a sliding window; or over all, where a gate in the network asks for it."""
        config = {"name": layer.name, "dtype": layer.get_config()["dtype"]}
        is_average = isinstance(layer, layers.GlobalAveragePooling2D)
        if id(layer) in self.known_gates:
            copy = type(layer).from_config(config | {"keepdims": True})
        else:
            size = (start.height, start.width)
            pooling = layers.AveragePooling2D if is_average else layers.MaxPooling2D
            copy = pooling.from_config(config | {"pool_size": size, "strides": 1})
        copy = self.copies.setdefault((id(layer), start.height, start.width), copy)
        end = dataclasses.replace(
            start, height=1, width=1, flat=not layer.keepdims, pools=start.pools | {id(layer)}
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
        if isinstance(layer, WINDOWED):
            if layer.data_format != "channels_last":
                raise _refusal(layer.name, "its data format is channels first")
            stride = _stride_after(layer, stride)
        elif isinstance(layer, layers.Concatenate):
            if layer.axis not in (-1, len(shape) - 1):
                raise _refusal(layer.name, "it joins maps along their height or width")
            if flat and len({(start.height, start.width) for start in maps}) > 1:
                raise _refusal(layer.name, "it joins flattened maps of different sizes")
            parts = sum((start.parts for start in maps), ())
        elif not (len(shape) in (2, 4) and self.treats_pixels_alike(layer, maps, args)):
            raise _refusal(layer.name, "it does not treat every pixel alike")
        elif flat:
            parts = first.parts if shape == first.shape else parts

        height, width = (first.height, first.width) if flat else shape[1:3]
        pools = frozenset().union(*(start.pools for start in maps))
        if (height, width) != (1, 1):  # a pooled pixel has gone back into a map
            self.gates |= set().union(*(start.pools for start in maps if start.is_pixel))
            pools = frozenset()
        if flat and (height, width) != (1, 1):
            return _Map(height, width, parts, True, stride)
        return _Map(height, width, (sum(parts),), flat, stride, pools)

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
            copy = _copy(layer, rank=len(maps[0].shape))
            copy(*whole)  # builds it
            _copy_weights(layer, copy)
            result = copy(*whole)
            alike = [(copy(*keras.tree.map_structure(crop, whole)), result[cut])]
            if all(start.flat and start.is_pixel for start in maps):
                # these are vectors in the classifier
                vectors = keras.tree.map_structure(vector, whole)
                alike.append((layer(*vectors), result[:, 1, 2]))
            return all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in alike)
        except Exception:  # whatever a layer of other people's raises on maps of other sizes
            return False


def functional(model):
    """Return a model as a functional one; raise if it is neither that nor Sequential."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` should be a built Sequential or functional Keras model. Received: "
            f"{model!r}. Give it an `Input`, or build it from one."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


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


def _refuse_layers_across_positions(model):
    for layer in _leaves(model).values():
        if isinstance(layer, ACROSS_POSITIONS):
            raise _refusal(layer.name, f"a {type(layer).__name__} relates positions to each other")


def _refusal(name, reason):
    return ValueError(
        "A fully convolutional model needs layers that do the same wherever the window is. "
        f"Received: the layer {name!r}, but {reason}. Convert the part of the model before it, or "
        "replace it."
    )


def _copy(layer, rank):
    """A new layer of the same settings, with its last axis the last of maps too."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, layers.Lambda):
        return layer  # without a state; and a Lambda can't be copied
    config = layer.get_config()
    if config.get("axis") == rank - 1:
        config["axis"] = -1
    return type(layer).from_config(config)


def _copy_weights(layer, copy):
    if isinstance(layer, keras.Layer) and layer.weights:
        copy.set_weights(layer.get_weights())


def _stride_after(layer, stride):
    """Pixels of the image from one output of a layer to the next."""
    steps = getattr(layer, "strides", None) or getattr(layer, "size", (1, 1))
    if isinstance(layer, ENLARGING):
        steps = [Fraction(1, step) for step in steps]
    return tuple(a * b for a, b in zip(stride, steps, strict=True))


def _part_kernels(kernel, size, parts):
    """Kernel of the convolution for flattened maps of `parts` channels, one after the other."""
    ends = np.cumsum(parts) * math.prod(size)
    return np.concatenate(
        [dense_to_conv(rows, size) for rows in np.split(kernel, ends[:-1])], axis=2
    )
