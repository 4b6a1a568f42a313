"""What one layer does to the map before it, for `receptive_fields`: the rules, by its class."""

import math
from fractions import Fraction

import keras
import numpy as np
from keras import layers

from keras_fcn.convolutionize import is_augmentation
from keras_fcn.layers import (
    BatchNormalization,
    BilinearCorners,
    CropLike,
    SizeCheck,
    VGGPreprocessing,
)

# Layers whose output pixel depends on the same pixel of each input.
POINTWISE = (
    layers.Activation,
    layers.ActivityRegularization,
    layers.Add,
    layers.AlphaDropout,
    layers.Average,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout2D,
    layers.Subtract,
    SizeCheck,
    VGGPreprocessing,
)
# These are pointwise if they work along the channels only.
ALONG_AXIS = (
    BatchNormalization,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.LayerNormalization,
    layers.Normalization,
    layers.RMSNormalization,
    layers.Softmax,
    layers.UnitNormalization,
)
# `UpSampling2D` looks at pixels nearer than this to the middle of its own. The weights of
# Lanczos at 3 and 5 are zero but for rounding, and rounding counts.
RADIUS = {"bilinear": 1, "bicubic": 2, "lanczos3": Fraction("3.01"), "lanczos5": Fraction("5.01")}


def _convolution(layer, source, axis):
    kernel = getattr(layer, "kernel_size", None) or layer.pool_size
    stride = layer.strides[axis]
    dilation = pair(getattr(layer, "dilation_rate", 1))[axis]
    reach = (kernel[axis] - 1) * dilation + 1
    size, padding = (source.size - reach) // stride + 1, 0
    if layer.padding == "same":
        size = -(-source.size // stride)
        padding = max((size - 1) * stride + reach - source.size, 0) // 2

    def taps(pixel):
        return range(pixel * stride - padding, pixel * stride - padding + reach, dilation)

    return source.derive(size, taps, stride)


def _transposed_convolution(layer, source, axis):
    kernel, stride = layer.kernel_size[axis], layer.strides[axis]
    dilation = pair(layer.dilation_rate)[axis]
    shape = [1, source.size, source.size, layer.input_spec.axes[-1]]
    size = layer.compute_output_shape(shape)[1 + axis]
    padding = 0
    if layer.padding == "same":
        padding = max((source.size - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2

    def taps(pixel):
        places = [pixel + padding - tap * dilation for tap in range(kernel)]
        return [place // stride for place in places if place % stride == 0]

    return source.derive(size, taps, Fraction(1, stride))


def _upsampling(layer, source, axis):
    factor = layer.size[axis]

    def taps(pixel):
        if layer.interpolation == "nearest":
            return [pixel // factor]
        middle, radius = Fraction(2 * pixel + 1 - factor, 2 * factor), RADIUS[layer.interpolation]
        return range(math.floor(middle - radius) + 1, math.ceil(middle + radius))

    return source.derive(source.size * factor, taps, Fraction(1, factor))


def _corners(_layer, source, _axis):
    def taps(corner):
        return [(corner - 1) // 2, corner // 2]

    return source.derive(2 * source.size + 1, taps, Fraction(1, 2))


def _padding(layer, source, axis):
    before, after = layer.padding[axis]
    return source.derive(source.size + before + after, lambda pixel: [pixel - before])


def _cropping(layer, source, axis):
    before, after = layer.cropping[axis]
    return source.derive(source.size - before - after, lambda pixel: [pixel + before])


# The map that a layer makes of another along an axis, by the class of the layer.
WINDOWS = {
    layers.AveragePooling2D: _convolution,
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.Cropping2D: _cropping,
    layers.DepthwiseConv2D: _convolution,
    layers.MaxPooling2D: _convolution,
    layers.SeparableConv2D: _convolution,
    layers.UpSampling2D: _upsampling,
    layers.ZeroPadding2D: _padding,
    BilinearCorners: _corners,
}


def check_layer(layer, name, node):
    """Raise `ValueError`, naming the layer, unless each of its pixels sees a window only."""
    kind = type(layer)
    if any(len(tensor.shape) != 4 for tensor in (*node.input_tensors, *node.outputs)):
        raise refusal(name, f"{kind.__name__} makes of a map or takes what is none")
    if getattr(layer, "data_format", "channels_last") not in (None, "channels_last"):
        raise refusal(name, "its data format is channels first")
    if not _is_plain(getattr(layer, "activation", None)):
        raise refusal(name, "its activation is a function of which nothing is known")
    if kind in WINDOWS or kind in (CropLike, *POINTWISE) or is_augmentation(layer):
        return
    if isinstance(layer, layers.Activation) and kind.__module__.startswith("keras_fcn"):
        return
    if kind is layers.PReLU:
        if not {1, 2} <= set(layer.shared_axes or ()):
            raise refusal(name, "it has a number of its own for every place")
    elif kind in ALONG_AXIS:
        if not set(pair(layer.axis)) <= {-1, 3}:
            raise refusal(name, f"{kind.__name__} works along height or width")
    elif isinstance(layer, keras.Layer):
        raise refusal(name, f"in {kind.__name__} pixels far apart may meet")
    elif not _is_pointwise(node):
        raise refusal(name, f"in the operation {kind.__name__} pixels far apart meet")


def _is_plain(activation):
    """Whether an activation is one of Keras's, or none."""
    module = getattr(activation, "__module__", None) or type(activation).__module__
    return activation is None or module.startswith("keras.")


def _is_pointwise(node):
    """Try an operation on random maps: does a crop of them give the crop of the result?"""
    rng = np.random.default_rng(0)
    maps = {
        id(tensor): rng.uniform(0.5, 1.5, (1, 6, 7, tensor.shape[-1])).astype("float32")
        for tensor in node.input_tensors
    }
    crop = np.s_[:, 1:-2, 2:-1]  # no symmetric one, which a flip would pass

    def apply(crop):
        args, kwargs = node.arguments.fill_in({key: one[crop] for key, one in maps.items()})
        return keras.ops.convert_to_numpy(node.operation(*args, **kwargs))

    try:
        whole, cropped = apply(np.s_[:]), apply(crop)
        return whole[crop].shape == cropped.shape and np.allclose(whole[crop], cropped)
    except Exception:  # whatever an operation raises on maps of other sizes
        return False


def refusal(name, reason):
    """Return the error for a layer that has no receptive field."""
    return ValueError(
        "A receptive field is known where each pixel of a layer sees a window of the layer "
        f"before. Received: the layer {name!r}, but {reason}. Ask for that of the part of the "
        "model before it: `keras.Model(model.input, layer.output)`."
    )


def pair(value):
    """Return a size along both axes, (height, width)."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
