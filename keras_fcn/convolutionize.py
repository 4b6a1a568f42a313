"""A dense layer is a convolution: the mathematics, and models converted by it."""

import numpy as np


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
