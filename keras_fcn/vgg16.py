"""The fully convolutional VGG16 trunk, and VGG16's weights in it.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, 2015, table 1, column D; made fully convolutional as by Long,
Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation,
2015, section 3.1.
"""

import os
import warnings
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from keras_fcn.archives import check_pieces, models_directory, open_weights
from keras_fcn.convolutionize import dense_to_conv
from keras_fcn.layers import BatchNormalization
from keras_fcn.remedies import given, spell

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
        x = BatchNormalization(name=f"{name}_bn")(x)
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


def load_vgg16(
    model: keras.Model, vgg16: keras.Model | str | os.PathLike | None = None
) -> keras.Model:
    """Load VGG16's weights into an FCN or a U-Net with `encoder="vgg16"`.

    The convolutions are copied. For an FCN, fc6 is the dense `fc1` with its
    kernel reshaped to 7x7x512, fc7 is `fc2` as a 1x1 convolution. Where
    `fc_filters` is smaller than 4096, evenly spaced units of both are taken
    (decimation; Chen et al., DeepLab, 2018, section 4.1, do so for speed).
    From a VGG16 without its top layers an FCN takes the convolutions; a warning
    says that fc6 and fc7 are left as they were.

    Where the first convolution has other than 3 channels its kernel is
    adapted, so that a gray image gives what its RGB copy gives: summed for one
    channel, tiled and rescaled for more. In a network with batch normalisation
    each normalisation of the trunk becomes the convolution's bias and leaves the
    rest to training: at inference the features are VGG16's.

    Args:
        model: model of `FCN32s`, `FCN16s`, `FCN8s` or `UNet(encoder="vgg16")`;
            changed in place.
        vgg16: `keras.applications.VGG16` model, with its top layers or without;
            or the path of its weights file, `.h5` or `.weights.h5`. By default
            the ImageNet one, downloaded by Keras.

    Returns:
        The model.

    Raises:
        ValueError: when a layer is missing on either side, or does not fit. The
            model is then as it was.
        FileNotFoundError: for a missing file.
        OSError: when the download fails; it says where to put a file fetched by
            hand.

    Example:

    >>> import keras
    >>> vgg16 = keras.applications.VGG16(weights=None, include_top=False)
    >>> unet = UNet(num_classes=3, encoder="vgg16")
    >>> load_vgg16(unet, vgg16) is unet
    True
    """
    needed = _needed_layers(model)
    has_dense = "fc6" in needed.values()
    if vgg16 is None:
        source = _download_vgg16(has_dense)
    elif isinstance(vgg16, str | os.PathLike):
        source = _read_vgg16(Path(vgg16), has_dense)
    else:
        source = vgg16
    available = {layer.name: layer for layer in source.layers}
    if has_dense and not {"fc1", "fc2"} & set(available):
        warnings.warn(
            f"This VGG16 has no dense layers: fc6 and fc7 of {model.name!r} are left as they "
            "were, and its convolutions are loaded.",
            stacklevel=2,
        )
        needed = {theirs: name for theirs, name in needed.items() if theirs.startswith("block")}
    if missing := sorted(set(needed) - set(available)):
        raise ValueError(
            "`vgg16` should be a `keras.applications.VGG16` model or its weights file. Received: "
            f"{source.name!r}, without the layers {missing}"
        )

    values: dict[str, list] = {}
    for theirs, target in needed.items():
        kernel, bias = (np.asarray(w) for w in available[theirs].get_weights())
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(
                f"VGG16's weights should be finite. Received: {source.name!r} with NaN or infinite "
                f"numbers in {theirs!r}. Fetch the file again."
            )
        kernel, bias = _fit_kernel(model.get_layer(target), kernel, bias)
        values |= _layer_values(model, target, kernel, bias)
    for target, arrays in values.items():
        model.get_layer(target).set_weights(arrays)
    return model


def is_vgg16_file(path: str | os.PathLike) -> bool:
    """Whether an HDF5 file holds the thirteen convolutions of VGG16 and no others."""
    received: Counter = Counter()

    def count(_name, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            received[item.shape] += 1

    with h5py.File(path) as file:
        file.visititems(count)
    expected: Counter = Counter()
    channels = 3
    for block in BLOCKS:
        for filters in block.values():
            expected[3, 3, channels, filters] += 1
            channels = filters
    return received == expected


def _needed_layers(model):
    """Return {layer of keras.applications.VGG16: layer of the model}."""
    names = {layer.name for layer in model.layers}
    needed = {
        f"block{b}_conv{c}": name
        for b, block in enumerate(BLOCKS, start=1)
        for c, name in enumerate(block, start=1)
    }
    if {"fc6", "fc7"} <= names:
        needed |= {"fc1": "fc6", "fc2": "fc7"}
    if not set(needed.values()) <= names:
        raise ValueError(
            f"VGG16 fits FCN32s, FCN16s, FCN8s and U-Nets with {spell('encoder', 'vgg16')}. "
            f"Received: model {model.name!r}, without the layers "
            f"{sorted(set(needed.values()) - names)}"
        )
    return needed


def _download_vgg16(include_top):
    try:
        return keras.applications.VGG16(weights="imagenet", include_top=include_top)
    except Exception as error:  # Keras raises a bare Exception
        ending = "" if include_top else "_notop"
        file = f"vgg16_weights_tf_dim_ordering_tf_kernels{ending}.h5"
        raise OSError(
            f"{spell('weights', 'imagenet')} downloads VGG16's weights. Received: no download "
            f"({error}). Fetch {file} by hand from "
            f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{file} and put "
            f"it into '{models_directory()}', or pass its path as {spell('weights')}."
        ) from error


def _read_vgg16(path, include_top):
    """Return Keras's VGG16 with the weights of a file, with its top layers if they are there."""
    if not path.is_file():
        raise FileNotFoundError(f"VGG16's weights should be in a file. Received: no file '{path}'.")
    reasons = []
    for top in (include_top, not include_top):
        try:
            with open_weights(path) as file:  # refuses claims, and links to other files
                check_pieces(file)
                vgg16 = keras.applications.VGG16(weights=None, include_top=top)
                with warnings.catch_warnings(record=True) as told:
                    vgg16.load_weights(path)
        except Exception as error:  # Keras raises what h5py does; what it told before is void
            reasons.append(str(error))
        else:
            for warning in told:
                warnings.warn(warning.message, stacklevel=2)
            return vgg16
    raise ValueError(
        "VGG16's weights should be a file of `keras.applications.VGG16`, `.h5` or `.weights.h5`. "
        f"Received: '{path}', which Keras does not load: {reasons[0]}"
    )


def _layer_values(model, name, kernel, bias):
    """Return {layer name: arrays} that compute `kernel` and `bias`, with normalisation or not."""
    if model.get_layer(name).use_bias:
        return {name: [kernel, bias]}
    normalization = model.get_layer(f"{name}_bn")
    ones = np.ones_like(bias)
    gamma = ones * (1 + normalization.epsilon) ** 0.5  # undoes the division by the deviation
    return {name: [kernel], normalization.name: [gamma, bias, 0 * bias, ones]}


def _fit_kernel(layer, kernel, bias):
    """Bring the kernel and bias of a VGG16 layer into the shape of ours."""
    height, width, channels, filters = layer.kernel.shape
    if layer.name == "conv1_1":
        kernel = _adapt_channels(kernel, channels)
    elif layer.name in ("fc6", "fc7"):
        kernel = dense_to_conv(kernel, (height, width))
        units = _evenly_spaced(filters, kernel.shape[3])
        kernel, bias = kernel[..., units], bias[units]
        if layer.name == "fc7":
            kernel = kernel[:, :, units]
    if kernel.shape != tuple(layer.kernel.shape):
        raise ValueError(
            f"The layer {layer.name!r} should have a kernel of shape {tuple(layer.kernel.shape)}. "
            f"Received from VGG16: {kernel.shape}"
        )
    return kernel, bias


def _evenly_spaced(count, total):
    """Return `count` indices spread evenly over `range(total)`."""
    if count > total:
        raise ValueError(
            f"{spell('fc_filters')} should be at most {total}, the units of VGG16's dense layers. "
            f"Received: {given('fc_filters', count)}"
        )
    return np.arange(count) * total // count


def _adapt_channels(kernel, channels):
    """Make a kernel for 3 channels one for any number, of the same sum over the channels."""
    if channels < 3:
        return np.repeat(kernel.sum(axis=2, keepdims=True) / channels, channels, axis=2)
    tiled = np.arange(channels) % 3
    return kernel[:, :, tiled] / np.bincount(tiled)[tiled][:, None]
