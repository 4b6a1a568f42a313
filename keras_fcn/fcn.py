"""FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic
Segmentation, CVPR 2015. The layers bear the names of the authors' networks.
"""

import keras
from keras import layers

from keras_fcn.arguments import check_model_arguments, check_positive_integer
from keras_fcn.layers import Bilinear, CropLike, VGGPreprocessing
from keras_fcn.vgg16 import vgg16_trunk
from keras_fcn.weights import load_weights

# Rows and columns that the authors crop when the image has its 100-pixel border.
OFFSET_POOL4 = 5
OFFSET_POOL3 = 9
OFFSET_IMAGE = {32: 19, 16: 27, 8: 31}


def FCN32s(
    input_shape=(None, None, 3),
    num_classes=21,
    weights=None,
    classifier_activation="softmax",
    padding="same",
    fc_filters=4096,
    include_preprocessing=True,
    name="fcn32s",
):
    return _fcn(32, **locals())


def FCN16s(
    input_shape=(None, None, 3),
    num_classes=21,
    weights=None,
    classifier_activation="softmax",
    padding="same",
    fc_filters=4096,
    include_preprocessing=True,
    name="fcn16s",
):
    return _fcn(16, **locals())


def FCN8s(
    input_shape=(None, None, 3),
    num_classes=21,
    weights=None,
    classifier_activation="softmax",
    padding="same",
    fc_filters=4096,
    include_preprocessing=True,
    name="fcn8s",
):
    return _fcn(8, **locals())


def _fcn(stride, **arguments):
    """Build FCN-`stride`s, and load its weights."""
    model = _build(stride, **{k: v for k, v in arguments.items() if k != "weights"})
    load_weights(model, f"FCN{stride}s", arguments)
    return model


def _build(
    stride,
    input_shape,
    num_classes,
    classifier_activation,
    padding,
    fc_filters,
    include_preprocessing,
    name,
):
    check_model_arguments(input_shape, num_classes, classifier_activation, padding)
    check_positive_integer("fc_filters", fc_filters)

    images = keras.Input(input_shape, name="images")
    x = images
    if include_preprocessing:
        x = VGGPreprocessing(dtype="float32", name="preprocessing")(x)
    pool3, pool4, fc7 = vgg16_trunk(x, padding, fc_filters)

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
    x = layers.Activation(classifier_activation, dtype="float32", name="predictions")(x)
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
