"""The maps of a network for an image of a given size, read from its Keras graph."""

import dataclasses

import keras
from keras import layers

from keras_fcn.arguments import check_input_shape
from keras_fcn.layers import CropLike

FEATURES, COPIED, SCORES, IMAGE = "#a9c8e8", "#ffffff", "#f6cf94", "#dddddd"


@dataclasses.dataclass
class Skip:
    """A map of the way down that comes to one of the way up."""

    source: int  # which of the maps
    operation: tuple  # (kind, text) on its way
    caption: str
    shape: tuple  # (height, width, channels) on its arrival
    is_added: bool  # else concatenated


@dataclasses.dataclass
class Map:
    """A map of features as it is drawn: a box, and what is written at it."""

    layer: str  # the name of the layer that made it
    operation: tuple | None  # (kind, text); None for the image and for sums
    shape: tuple  # (height, width, channels)
    caption: str
    color: str
    row: int  # from the top
    is_beside: bool  # right of the map before it; else above or below it
    skip: Skip | None = None
    kept: tuple | None = None  # (first row, rows) between the dashed lines


def check_model(model):
    """Raise `ValueError` for a model that is none of those that are drawn."""
    names = {layer.name for layer in getattr(model, "layers", ())}
    if not ({"pool1", "upconv1", "concat1"} <= names or {"pool5", "fc6", "score_fr"} <= names):
        raise ValueError(
            "draw_architecture draws models of UNet, FCN32s, FCN16s, FCN8s and FCN8sAtOnce, which "
            f"it knows by the names of their layers. Received: {model!r}. "
            "`keras.utils.plot_model` draws the graph of any Keras model."
        )


def check_image_shape(model, input_shape):
    """Raise `ValueError` for the shape of an image that the model does not take."""
    check_input_shape(input_shape)
    taken = model.input_shape[1:]
    fits = all(size in (None, given) for size, given in zip(taken, input_shape, strict=True))
    if None in input_shape or not fits:
        raise ValueError(
            "`input_shape` should be the height, width and channels, in numbers, of an image that "
            f"the model takes: {taken}. Received: input_shape={input_shape!r}"
        )


def read_maps(model, input_shape):
    """Return the maps from the image to the output, for an image of this shape."""
    parents = _find_parents(model)
    path, skips = _find_path(model, parents)
    reader = _Reader(_compute_shapes(model, input_shape), parents, skips)
    for layer in path:
        reader.read(layer)
    reader.maps[-1].caption = "output"
    return reader.maps


def _compute_shapes(model, input_shape):
    """Return {layer's name: (height, width, channels) of its output}, without computing maps."""
    every_output = keras.Model(model.input, [layer.output for layer in model.layers])
    shapes = every_output.compute_output_shape((1, *input_shape))
    return {layer.name: shape[1:] for layer, shape in zip(model.layers, shapes, strict=True)}


def _find_parents(model):
    """Return {layer's name: the layers whose maps it takes}."""
    makers = {id(layer.output): layer for layer in model.layers}
    parents = {}
    for layer in model.layers:
        is_image = isinstance(layer, layers.InputLayer)
        tensors = [] if is_image else keras.tree.flatten(layer.input)
        if isinstance(layer, CropLike):
            tensors = tensors[:1]  # of the reference it takes only the size
        parents[layer.name] = [makers[id(tensor)] for tensor in tensors]
    return parents


def _find_path(model, parents):
    """Return the layers by way of the deepest map, and {merging layer's name: last of its skip}."""
    depths = {}
    for layer in model.layers:  # Keras lists them in the order of computation
        depths[layer] = 1 + max((depths[parent] for parent in parents[layer.name]), default=0)
    path, skips = [model.layers[-1]], {}
    while parents[path[0].name]:
        *shallower, deepest = sorted(parents[path[0].name], key=depths.get)
        if shallower:
            (skips[path[0].name],) = shallower
        path.insert(0, deepest)
    return path, skips


class _Reader:
    """Reads the layers of a path, one after the other, into maps."""

    def __init__(self, shapes, parents, skips):
        self.shapes = shapes
        self.parents = parents
        self.skips = skips
        self.merged = {parent for name in skips for parent in parents[name]}
        self.is_unet = "upconv1" in shapes
        self.maps = []
        self.numbers = {}  # {layer's name: which of the maps it made or handed on}

    def read(self, layer):
        last = self.maps[-1] if self.maps else None
        shape = self.shapes[layer.name]
        match layer:
            case layers.InputLayer():
                self._add(layer)
            case layers.Conv2DTranspose():
                self._add(layer, "upsampling", is_beside=False)
            case layers.Conv2D() if layer.name.startswith("upconv"):
                self._add(layer, "upsampling", is_beside=False)
            case layers.Conv2D():
                # the block of an FCN begins below the pool that ends the one before
                is_below = not self.is_unet and last.layer.startswith("pool")
                self._add(layer, "convolution", row=last.row + is_below, is_beside=not is_below)
            case layers.MaxPooling2D():
                # the level of a U-Net begins with the pool
                row = last.row + self.is_unet
                self._add(layer, "pooling", row=row, is_beside=not self.is_unet)
            case layers.ZeroPadding2D():
                self._add(layer, "frame")
                self.maps[-1].kept = (layer.padding[0][0], last.shape[0])
            case layers.Concatenate() | layers.Add():
                self._merge(layer)
            case CropLike() if layer in self.merged:
                last.shape = shape
            case CropLike() if shape != last.shape:
                last.kept = (layer.offset, shape[0])
                self._add(layer, "frame")
            case CropLike():
                pass  # of nothing
            case _ if last.operation and _describe(layer):
                kind, text = last.operation
                last.operation = (kind, f"{text}, {_describe(layer)}")
        self.numbers[layer.name] = len(self.maps) - 1

    def _add(self, layer, kind=None, row=0, is_beside=True):
        operation = kind and (kind, _describe(layer))
        is_image = isinstance(layer, layers.InputLayer)
        caption = "image" if is_image else self._caption(layer.name)
        if is_image or isinstance(layer, layers.ZeroPadding2D):
            color = IMAGE
        elif layer.name.startswith(("score", "upscore", "fuse")):
            color = SCORES
        else:
            color = FEATURES
        shape = self.shapes[layer.name]
        self.maps.append(Map(layer.name, operation, shape, caption, color, row, is_beside))

    def _caption(self, name):
        """Name the maps of an FCN, but for the many convolutions of VGG16; none of a U-Net."""
        return "" if self.is_unet or name.startswith("conv") else name

    def _merge(self, layer):
        """Bring a skip to the map above, and draw a sum as a map of its own."""
        up = self.maps[-1]
        up.skip = self._read_skip(self.skips[layer.name], isinstance(layer, layers.Add))
        up.row = self.maps[up.skip.source].row
        if up.skip.is_added:
            self._add(layer, row=up.row)

    def _read_skip(self, end, is_added):
        """Follow a skip back from its last layer to a map of the path."""
        steps, caption, kept, layer = [], "", None, end
        while layer.name not in self.numbers:
            (parent,) = self.parents[layer.name]
            if isinstance(layer, layers.Conv2D):
                caption = self._caption(layer.name)
            if isinstance(layer, CropLike) and self.shapes[layer.name] != self.shapes[parent.name]:
                kept = (layer.offset, self.shapes[layer.name][0])
            if not isinstance(layer, CropLike) or kept:
                steps.insert(0, _describe(layer))
            layer = parent
        source = self.numbers[layer.name]
        self.maps[source].kept = kept
        text = f"skip: {', '.join(steps)}" if is_added else " and ".join(["copy", *steps])
        return Skip(source, ("skip", text), caption, self.shapes[end.name], is_added)


def _describe(layer):
    """Return what a layer does, in the legend's words; nothing for one that is not drawn."""
    match layer:
        case layers.Conv2D() if layer.name.startswith("upconv"):
            return f"bilinear interpolation, {_times(layer.kernel_size)} convolution"
        case layers.Conv2D():
            text = f"{_times(layer.kernel_size)} convolution"
            return f"{text}, ReLU" if layer.activation is keras.activations.relu else text
        case layers.BatchNormalization():
            return "batch normalisation"
        case layers.ReLU():
            return "ReLU"
        case layers.MaxPooling2D():
            return f"{_times(layer.pool_size)} max pooling"
        case layers.Conv2DTranspose():
            return f"{_times(layer.kernel_size)} transposed convolution, stride {layer.strides[0]}"
        case layers.ZeroPadding2D():
            return f"border of {layer.padding[0][0]} zeros"
        case layers.Rescaling():
            return f"scaling by {layer.scale:g}"
        case layers.Activation() if layer.activation is not keras.activations.linear:
            return layer.activation.__name__
        case CropLike():
            return "crop"
    return ""


def _times(size):
    return "x".join(map(str, size))


# The layout
