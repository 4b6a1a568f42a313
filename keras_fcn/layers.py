"""The few layers and initializers that Keras lacks."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_fcn import private
from keras_fcn.classes import Classes

# Mean (blue, green, red) of ILSVRC12, as the FCN authors subtract it.
VGG_MEAN_BGR = (104.00699, 116.66877, 122.67892)


@keras.saving.register_keras_serializable(package="keras_fcn")
class Bilinear(keras.initializers.Initializer):
    """Kernel that makes a transposed convolution upsample bilinearly.

    Class `i` of the output is class `i` of the input, interpolated; classes
    do not mix. The kernel is the `upsample_filt` of the FCN authors'
    `surgery.py`.

    Example:

    >>> kernel = Bilinear()((4, 4, 1, 1))
    >>> [float(v) for v in kernel[0, :, 0, 0]]
    [0.0625, 0.1875, 0.1875, 0.0625]
    """

    def __call__(self, shape, dtype=None):
        """Return a float kernel of shape `(height, width, outputs, inputs)`."""
        height, width, outputs, inputs = shape
        classes = np.arange(min(outputs, inputs))
        kernel = np.zeros(shape, "float32")
        kernel[:, :, classes, classes] = np.outer(_triangle(height), _triangle(width))[..., None]
        return ops.convert_to_tensor(kernel, dtype=dtype)


def _triangle(size):
    """Weights of linear interpolation for a kernel of `size` samples."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 else factor - 0.5
    return 1 - abs(np.arange(size) - center) / factor


@keras.saving.register_keras_serializable(package="keras_fcn")
class BilinearCorners(keras.layers.Layer):
    """Interpolates maps at the corners of the pixels of a map twice as high and wide.

    A 2x2 convolution of the corners gives that map, and each of its pixels is in the
    middle of what it was made from. Keras's `UpSampling2D` interpolates at the middles
    of the pixels, and fails in TensorFlow graphs when the size of the maps is free.

    Call arguments:
        x: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, 2 * height + 1, 2 * width + 1, channels)`; beyond its border
        the map goes on as at its border.
    """

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        x = ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
        # in a TensorFlow graph a repeated map has forgotten its number of channels
        x = ops.reshape(x, (batch, 2 * height, 2 * width, channels))
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
        return ops.average_pool(x, 2, strides=1)

    def compute_output_shape(self, x_shape):
        batch, height, width, channels = x_shape
        doubled = [size and 2 * size + 1 for size in (height, width)]
        return (batch, *doubled, channels)


@keras.saving.register_keras_serializable(package="keras_fcn")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation, trained in one operation where TensorFlow has one for it.

    Keras 3 makes it of many, each a pass over the maps: on two cores a step of a U-Net
    took 1.6 times as long (`python benchmarks/optimizer_step.py`). The numbers are the same but for
    rounding, and so are arguments, weights and whatever is not training of maps of channels.
    """

    def call(self, inputs, training=None, mask=None):
        if not training or mask is not None or not self._is_plain(inputs):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = private.fused_batch_norm(
            inputs, self.gamma, self.beta, self.epsilon
        )
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return outputs

    def _is_plain(self, inputs):
        """Whether the layer learns, as most do, what the one operation can."""
        return (
            keras.backend.backend() == "tensorflow"
            and self.trainable
            and self.scale
            and self.center
            and not (self.renorm or self.synchronized)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.compute_dtype in ("float32", "float16", "bfloat16")
            # else Keras's layer changes the dtype, or keeps its numbers in another
            and keras.backend.standardize_dtype(inputs.dtype) == self.compute_dtype
            and self.variable_dtype == "float32"
        )


@keras.saving.register_keras_serializable(package="keras_fcn")
class CropLike(keras.layers.Layer):
    """Crops feature maps to the height and width of a reference.

    Args:
        offset: rows dropped at the top, and columns dropped at the left.

    Call arguments:
        x: tensor `(batch, height, width, channels)`.
        reference: tensor `(batch, h, w, any)` with `offset + h <= height` and
            `offset + w <= width`.

    Returns:
        Tensor `(batch, h, w, channels)`.
    """

    def __init__(self, offset: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.offset = offset

    def call(self, x, reference):
        height, width = ops.shape(reference)[1:3]
        start = self.offset
        return x[:, start : start + height, start : start + width]

    def compute_output_shape(self, x_shape, reference_shape):
        return (x_shape[0], *reference_shape[1:3], x_shape[3])

    def get_config(self):
        return {**super().get_config(), "offset": self.offset}


@keras.saving.register_keras_serializable(package="keras_fcn")
class SizeCheck(keras.layers.Layer):
    """Passes images on unchanged, and refuses those that unpadded layers do not fit.

    Of other sizes pooling would drop rows and columns at one side, and the output would
    lie in the image off its centre.

    Args:
        minimum: the smallest height and width that leaves an output, pixels.
        step: sizes `minimum + k * step` fit.

    Raises:
        ValueError: when a known height or width does not fit.
    """

    def __init__(self, minimum: int, step: int, **kwargs):
        super().__init__(**kwargs)
        self.minimum = minimum
        self.step = step

    def call(self, images):
        self._check(images.shape)
        return images

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        return input_shape

    def _check(self, shape):
        wrong = [
            size
            for size in shape[1:3]
            if size is not None and (size < self.minimum or (size - self.minimum) % self.step)
        ]
        if wrong:
            below = max(0, wrong[0] - self.minimum) // self.step * self.step + self.minimum
            raise ValueError(
                f'With `padding="valid"` the image should be {self.minimum} pixels high and wide, '
                f"or {self.step} more, and so on. Received: height={shape[1]}, width={shape[2]}. "
                f"The nearest to {wrong[0]} that fit are {below} and {below + self.step}. Crop or "
                'mirror-pad the image, call `predict_image`, which does, or use `padding="same"`.'
            )

    def get_config(self):
        return {**super().get_config(), "minimum": self.minimum, "step": self.step}


@keras.saving.register_keras_serializable(package="keras_fcn")
class VGGPreprocessing(keras.layers.Layer):
    """Turns raw pixels into what VGG's weights expect: BGR, mean subtracted.

    One or two channels are repeated to make three, so a gray image gives what
    its RGB copy gives. Channels after the third keep their place and take the
    three means in turn.

    Call arguments:
        images: tensor `(batch, height, width, channels)`, RGB in [0, 255].

    Returns:
        Tensor `(batch, height, width, max(3, channels))`, about [-124, 151].
    """

    def call(self, images):
        channels = images.shape[-1]
        if channels == 3:
            bgr = ops.flip(images, axis=-1)
        else:
            bgr = ops.matmul(images, ops.cast(_channel_order(channels), images.dtype))
        mean = np.resize(VGG_MEAN_BGR, max(3, channels))
        return bgr - ops.cast(mean, images.dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], max(3, input_shape[-1]))


def _channel_order(channels):
    """Return the matrix (channels, max(3, channels)) of ones that puts channels in VGG's order.

    A product with it, or a flip, and not `ops.take`: OpenVINO 2026.4 folds a gathered order
    into the wrong weights where a transposed convolution follows, without a word.
    """
    if channels < 3:
        order = [number % channels for number in range(3)]
    else:
        order = [2, 1, 0, *range(3, channels)]
    return np.eye(channels, dtype="float32")[:, order]


@keras.saving.register_keras_serializable(package="keras_fcn")
class Predictions(keras.layers.Activation):
    """The activation of the scores, which knows what the classes are.

    So a saved model does, too: `keras_fcn.load_model` and the command line paint and name
    with it, and leave the void label out.

    Args:
        activation: as in `keras.layers.Activation`; None for scores.
        classes: `keras_fcn.Classes`, or the dict of its `to_config`, or None.
    """

    def __init__(
        self, activation: str | Callable | None, classes: Classes | dict | None = None, **kwargs
    ):
        super().__init__(activation, **kwargs)
        self.classes = Classes.from_config(classes) if isinstance(classes, dict) else classes

    def get_config(self):
        classes = None if self.classes is None else self.classes.to_config()
        return {**super().get_config(), "classes": classes}
