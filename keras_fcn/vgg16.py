"""The fully convolutional VGG16 trunk.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, 2015, table 1, column D; made fully convolutional as by Long,
Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation,
2015, section 3.1.
"""

from keras import layers

# Filters of the convolutions of each block, by the authors' layer names.
BLOCKS = (
    {"conv1_1": 64, "conv1_2": 64},
    {"conv2_1": 128, "conv2_2": 128},
    {"conv3_1": 256, "conv3_2": 256, "conv3_3": 256},
    {"conv4_1": 512, "conv4_2": 512, "conv4_3": 512},
    {"conv5_1": 512, "conv5_2": 512, "conv5_3": 512},
)


def conv(x, filters, name, kernel_size=3, padding="same", batch_norm=False):
    """He-initialised convolution, batch normalisation if wanted, and ReLU."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        padding=padding,
        activation=None if batch_norm else "relu",
        use_bias=not batch_norm,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return x


def pool(x, name, padding="same"):
    """2x2 max pooling; `"same"` rounds odd sizes up, as Caffe does."""
    return layers.MaxPooling2D(2, padding=padding, name=name)(x)


def vgg16_trunk(images, padding, fc_filters, batch_norm=False):
    """Return pool3, pool4 and fc7 of preprocessed images.

    Args:
        images: tensor `(batch, height, width, channels)`.
        padding: `"same"`, or `"valid"` for the published network: a border of
            100 zeros and an unpadded fc6.
        fc_filters: filters of fc6 and fc7.
        batch_norm: whether batch normalisation follows each convolution.

    Returns:
        Tensors at 1/8, 1/16 and 1/32 of the image's size.
    """
    x = images
    if padding == "valid":
        # conv1_1 pads by 100; its "same" convolution pads by 1 of them
        x = layers.ZeroPadding2D(99, name="pad")(x)
    pools = []
    for number, block in enumerate(BLOCKS, start=1):
        for name, filters in block.items():
            x = conv(x, filters, name, batch_norm=batch_norm)
        x = pool(x, f"pool{number}")
        pools.append(x)
    x = conv(x, fc_filters, "fc6", 7, padding, batch_norm)
    x = layers.Dropout(0.5, name="drop6")(x)
    x = conv(x, fc_filters, "fc7", 1, batch_norm=batch_norm)
    x = layers.Dropout(0.5, name="drop7")(x)
    return pools[2], pools[3], x
