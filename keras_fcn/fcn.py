"""FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic
Segmentation, CVPR 2015. The layers bear the names of the authors' networks.
"""

import os
from collections.abc import Sequence

import keras
from keras import layers

from keras_fcn.arguments import check_model_arguments, check_positive_integer
from keras_fcn.layers import Bilinear, CropLike, Predictions, VGGPreprocessing
from keras_fcn.vgg16 import vgg16_trunk
from keras_fcn.weights import load_weights

# Rows and columns that the authors crop when the image has its 100-pixel border.
OFFSET_POOL4 = 5
OFFSET_POOL3 = 9
OFFSET_IMAGE = {32: 19, 16: 27, 8: 31}

AT_ONCE_SCALES = {"pool4": 0.01, "pool3": 0.0001}


def FCN32s(
    input_shape: Sequence[int | None] = (None, None, 3),
    num_classes: int = 21,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    padding: str = "same",
    fc_filters: int = 4096,
    batch_norm: bool = False,
    include_preprocessing: bool = True,
    name: str = "fcn32s",
) -> keras.Model:
    """FCN-32s: VGG16's class scores at 1/32 of the image, upsampled at once.

    Args:
        input_shape: `(height, width, channels)`, by default any size, RGB.
        num_classes: number of classes.
        weights: None (He-initialised trunk, score layers zero), `"imagenet"`
            (VGG16's weights in the trunk, see `load_vgg16`), `"pascal_voc"`
            (the authors' weights for 21 classes, see `load_caffemodel`), a name
            of `keras_fcn.pretrained()`, or the path of a weights file.
        classifier_activation: activation of the output; None for scores.
        padding: `"same"`: the output is aligned with the image at every size
            from 1x1 up. `"valid"`: the published network, with a border of 100
            zeros, an unpadded fc6 and the authors' crops; of the same output size.
        fc_filters: filters of fc6 and fc7.
        batch_norm: whether each convolution of the trunk is followed by batch
            normalisation, for training from scratch; VGG16's weights have none.
        include_preprocessing: whether the model takes RGB pixels in [0, 255]
            and makes them BGR with the mean subtracted itself.
        name: name of the model.

    Returns:
        `keras.Model` from float32 `(batch, height, width, channels)` to
        float32 `(batch, height, width, num_classes)`.

    Raises:
        ValueError: for an argument out of its range, or weights that do not fit.
        FileNotFoundError: for a missing weights file.
        OSError: when `"pascal_voc"` can't be downloaded; it says where to put
            a file fetched by hand.

    The transposed convolutions start bilinear and are trained with the rest.
    The authors' code keeps them so; to do the same:
    `model.get_layer("upscore").trainable = False`.

    Source: Long, Shelhamer and Darrell 2015, sections 3 and 4.1.

    Example:

    >>> model = FCN32s(num_classes=5, fc_filters=64)
    >>> model.output_shape
    (None, None, None, 5)
    """
    return _fcn("FCN32s", 32, locals())


def FCN16s(
    input_shape: Sequence[int | None] = (None, None, 3),
    num_classes: int = 21,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    padding: str = "same",
    fc_filters: int = 4096,
    batch_norm: bool = False,
    include_preprocessing: bool = True,
    name: str = "fcn16s",
) -> keras.Model:
    """FCN-16s: the scores of pool4 refine those of fc7, then 16 times upsampled.

    Arguments, return value and errors are those of `FCN32s`. `weights` may also be the
    `.keras` file of a trained FCN-32s: training goes on from there, as in the paper, with
    the scores of pool4 zero at first.

    Source: Long, Shelhamer and Darrell 2015, section 4.2 and figure 3.

    Example:

    >>> model = FCN16s(num_classes=5, fc_filters=64)
    >>> tuple(model.get_layer("score_pool4").kernel.shape[2:])
    (512, 5)
    """
    return _fcn("FCN16s", 16, locals())


def FCN8s(
    input_shape: Sequence[int | None] = (None, None, 3),
    num_classes: int = 21,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    padding: str = "same",
    fc_filters: int = 4096,
    batch_norm: bool = False,
    include_preprocessing: bool = True,
    name: str = "fcn8s",
) -> keras.Model:
    """FCN-8s: the scores of pool4 and pool3 refine those of fc7, then 8 times upsampled.

    Arguments, return value and errors are those of `FCN32s`. `weights` may also be the
    `.keras` file of a trained FCN-16s, or FCN-32s, to go on from: see `FCN16s`.

    Source: Long, Shelhamer and Darrell 2015, section 4.2 and figure 3.

    Example:

    >>> model = FCN8s(num_classes=5, fc_filters=64)
    >>> tuple(model.get_layer("score_pool3").kernel.shape[2:])
    (256, 5)
    """
    return _fcn("FCN8s", 8, locals())


def FCN8sAtOnce(
    input_shape: Sequence[int | None] = (None, None, 3),
    num_classes: int = 21,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    padding: str = "same",
    fc_filters: int = 4096,
    batch_norm: bool = False,
    include_preprocessing: bool = True,
    name: str = "fcn8s_at_once",
) -> keras.Model:
    """FCN-8s for training in one stage, with pool4 and pool3 scaled down.

    The factors 0.01 and 0.0001 bring the skips to the size of fc7's features, so
    that the three streams learn together, where FCN-32s, 16s and 8s are trained
    each from the one before.

    Arguments, return value and errors are those of `FCN32s`.

    Source: Long, Shelhamer and Darrell 2015, and their network voc-fcn8s-atonce.

    Example:

    >>> model = FCN8sAtOnce(num_classes=5, fc_filters=64)
    >>> model.get_layer("scale_pool4").scale
    0.01
    """
    return _fcn("FCN8sAtOnce", 8, locals(), skip_scales=AT_ONCE_SCALES)


def _fcn(factory, stride, arguments, skip_scales=None):
    """Build the network of a factory, and load its weights."""
    architecture = {key: value for key, value in arguments.items() if key != "weights"}
    model = _build(stride, skip_scales or {}, **architecture)
    load_weights(model, factory, arguments)
    return model


def _build(
    stride,
    skip_scales,
    input_shape,
    num_classes,
    classifier_activation,
    padding,
    fc_filters,
    batch_norm,
    include_preprocessing,
    name,
):
    check_model_arguments(input_shape, num_classes, classifier_activation, padding)
    check_positive_integer("fc_filters", fc_filters)
    num_classes, fc_filters = int(num_classes), int(fc_filters)

    images = keras.Input(input_shape, name="images")
    x = images
    if include_preprocessing:
        x = VGGPreprocessing(dtype="float32", name="preprocessing")(x)
    pool3, pool4, fc7 = vgg16_trunk(x, padding, fc_filters, batch_norm)
    if skip_scales:
        pool4 = layers.Rescaling(skip_scales["pool4"], name="scale_pool4")(pool4)
        pool3 = layers.Rescaling(skip_scales["pool3"], name="scale_pool3")(pool3)

    x = _score(fc7, num_classes, "score_fr")
    if stride <= 16:
        x = _upsample(x, 2, padding, "upscore2")
        x = _fuse(x, pool4, OFFSET_POOL4, padding, "pool4")
    if stride == 8:
        x = _upsample(x, 2, padding, "upscore_pool4")
        x = _fuse(x, pool3, OFFSET_POOL3, padding, "pool3")
    x = _upsample(x, stride, padding, "upscore" if stride == 32 else f"upscore{stride}")
    offset = OFFSET_IMAGE[stride] if padding == "valid" else 0
    x = CropLike(offset, dtype="float32", name="score")(x, images)
    x = Predictions(classifier_activation, dtype="float32", name="predictions")(x)
    return keras.Model(images, x, name=name)


def _score(x, num_classes, name):
    """1x1 convolution to class scores, zero at first, as the authors' are."""
    return layers.Conv2D(num_classes, 1, kernel_initializer="zeros", dtype="float32", name=name)(x)


def _upsample(x, factor, padding, name):
    """Transposed convolution, bilinear at first: `factor` times as many rows and columns."""
    return layers.Conv2DTranspose(
        x.shape[-1],
        2 * factor,
        strides=factor,
        padding=padding,
        use_bias=False,
        kernel_initializer=Bilinear(),
        dtype="float32",
        name=name,
    )(x)


def _fuse(x, skip, offset, padding, name):
    """Add the scores of a finer layer to the upsampled scores `x`."""
    score = _score(skip, x.shape[-1], f"score_{name}")
    if padding == "valid":
        # the border made the skip larger on every side
        score = CropLike(offset, dtype="float32", name=f"score_{name}c")(score, x)
    else:
        # pooling rounded up: the upsampled map may be one longer at its end
        x = CropLike(dtype="float32", name=f"crop_{name}")(x, score)
    return layers.Add(dtype="float32", name=f"fuse_{name}")([x, score])
