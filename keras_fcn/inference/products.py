"""Large convolutions as matrix products, which TensorFlow computes faster on a processor.

For each call TensorFlow brings the whole kernel into another order first, and computes a 7x7
convolution more slowly than a product of matrices. So VGG16's fc1, and fc6 of an FCN, of 103
million weights each, take half the time as products.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import keras
from keras import ops

from keras_fcn.private import flat_layers

LARGE = 6e6  # weights of a kernel; below it the convolution is as fast


@contextlib.contextmanager
def large_kernels_as_products(model: keras.Model) -> Iterator[None]:
    """Let a model's large convolutions compute by matrix products within the block."""
    found = [layer for layer in flat_layers(model) if _is_large(layer)]
    try:
        for layer in found:
            layer.convolution_op = functools.partial(convolve, padding=layer.padding)
        yield
    finally:
        for layer in found:
            with contextlib.suppress(AttributeError):  # another thread was here first
                del layer.convolution_op


def _is_large(layer):
    # float32 alone: half precision would round between the products
    return (
        type(layer) is keras.layers.Conv2D
        and layer.compute_dtype == "float32"
        and layer.data_format == "channels_last"
        and {*layer.strides, *layer.dilation_rate, layer.groups} == {1}
        and math.prod(layer.kernel.shape) >= LARGE
    )


def convolve(images, kernel, padding: str = "valid"):
    """Return a convolution, as one matrix product for each row of the kernel.

    Args:
        images: float tensor `(batch, height, width, channels)`.
        kernel: tensor `(rows, columns, channels, filters)`.
        padding: "valid" or "same".

    Returns:
        Tensor `(batch, height, width, filters)`, less the kernel's size - 1 for "valid".

    Example:

    >>> from keras import ops
    >>> convolve(ops.ones((1, 4, 5, 2)), ops.ones((3, 3, 2, 6))).shape
    TensorShape([1, 2, 3, 6])
    """
    rows, columns, channels, filters = kernel.shape
    if padding == "same":
        sides = [((size - 1) // 2, size // 2) for size in (rows, columns)]
        images = ops.pad(images, [(0, 0), *sides, (0, 0)])
    batch, height, width, _ = ops.shape(images)
    height, width = height - rows + 1, width - columns + 1
    kernel = ops.reshape(kernel, (rows, columns * channels, filters))
    total = 0
    for row in range(rows):  # all rows at once would hold the image `rows * columns` times
        strip = images[:, row : row + height]
        shifted = [strip[:, :, column : column + width] for column in range(columns)]
        windows = ops.reshape(ops.concatenate(shifted, axis=-1), (-1, columns * channels))
        total += ops.matmul(windows, kernel[row])  # (batch * height * width, filters)
    return ops.reshape(total, (batch, height, width, filters))
