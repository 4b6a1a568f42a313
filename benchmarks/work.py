"""How much a network computes, and what this machine could at most."""

import math
import time

import keras
import numpy as np

from keras_fcn.private import flat_layers

SIDE, REPEATS = 2048, 5


def multiplications(model, size):
    """Return {layer: multiplications} of the layers with a kernel, for one image of a size."""
    layers = [layer for layer in flat_layers(model) if getattr(layer, "kernel", None) is not None]
    maps = keras.Model(model.inputs, [layer.output for layer in layers])
    shapes = maps.compute_output_shape((1, *size, model.inputs[0].shape[-1]))
    return {
        layer.name: math.prod(shape[1:3]) * math.prod(layer.kernel.shape) / _spread(layer)
        for layer, shape in zip(layers, shapes, strict=True)
    }


def _spread(layer):
    """Return over how many output pixels a transposed convolution spreads an input pixel."""
    is_transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    return math.prod(layer.strides) if is_transposed else 1


def peak():
    """Return multiplications per second of a large matrix product in float32, the best of five."""
    matrix = keras.ops.convert_to_tensor(np.ones((SIDE, SIDE), "float32"))
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        np.asarray(keras.ops.matmul(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return SIDE**3 / min(seconds)
