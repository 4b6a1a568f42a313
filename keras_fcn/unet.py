"""U-Net.

Ronneberger, Fischer and Brox, U-Net: Convolutional Networks for Biomedical
Image Segmentation, MICCAI 2015.
"""

import os
from collections.abc import Sequence

import keras
from keras import layers

from keras_fcn import vgg16
from keras_fcn.arguments import (
    check_choice,
    check_filters,
    check_model_arguments,
    check_share,
)
from keras_fcn.layers import BilinearCorners, CropLike, Predictions, SizeCheck, VGGPreprocessing
from keras_fcn.remedies import given, spell
from keras_fcn.weights import load_weights

UPSAMPLINGS = ("transpose", "bilinear")


def UNet(  # noqa: PLR0913 what it is built of has names of its own
    input_shape: Sequence[int | None] = (None, None, 3),
    num_classes: int = 2,
    weights: str | os.PathLike | None = None,
    classifier_activation: str | None = "softmax",
    padding: str = "same",
    filters: Sequence[int] = (64, 128, 256, 512, 1024),
    encoder: str | None = None,
    batch_norm: bool = False,
    dropout: float = 0.5,
    upsampling: str = "transpose",
    include_preprocessing: bool = True,
    name: str = "unet",
) -> keras.Model:
    """U-Net: a contracting path, an expanding path, and skips between them.

    Args:
        input_shape: `(height, width, channels)`, by default any size, RGB.
        num_classes: number of classes.
        weights: None (He initialisation, paper section 3), `"imagenet"`
            (VGG16's, with `encoder="vgg16"`; see `load_vgg16`), a name of
            `keras_fcn.pretrained()`, or the path of a weights file.
        classifier_activation: activation of the output; None for scores.
        padding: `"same"`: the output has the image's size, for every size from
            1x1 up. `"valid"`: the published network of unpadded convolutions,
            whose output lacks a margin: 572x572 in, 388x388 out.
        filters: filters of each level from the image down; their number sets
            the depth.
        encoder: None for the paper's contracting path, or `"vgg16"` for the 13
            convolutions of VGG16, its fifth block the deepest level. Then
            `filters` is about the expanding path only, which has no fifth level,
            and the features are normalised where they enter it.
        batch_norm: whether each 3x3 convolution, of VGG16's excepted, is
            followed by batch normalisation.
        dropout: rate of the dropout at the end of the contracting path, after
            its two deepest levels.
        upsampling: how the expanding path doubles the size of its maps:
            `"transpose"`, a transposed 2x2 convolution with stride 2, or
            `"bilinear"`, bilinear interpolation and then a 2x2 convolution. The
            weights of one do not fit the other.
        include_preprocessing: whether the model takes pixels in [0, 255] and
            scales them itself: to [-1, 1], or with `encoder="vgg16"` from RGB
            to BGR with the mean subtracted.
        name: name of the model.

    Returns:
        `keras.Model` from float32 `(batch, height, width, channels)` to
        float32 `(batch, height, width, num_classes)`.

    Raises:
        ValueError: for an argument out of its range, weights that do not fit,
            or, with `padding="valid"`, an image too small to leave an output.
        FileNotFoundError: for a missing weights file.

    Source: Ronneberger, Fischer and Brox 2015, section 2 and figure 1.

    Example:

    >>> model = UNet(input_shape=(None, None, 1), padding="valid")
    >>> model.count_params()
    31030658
    >>> model.compute_output_shape((1, 572, 572, 1))
    (1, 388, 388, 2)
    """
    arguments = locals()
    check_model_arguments(input_shape, num_classes, classifier_activation, padding)
    filters = _check_filters(filters, encoder)
    check_share("dropout", dropout)
    num_classes = int(num_classes)
    check_choice("upsampling", upsampling, UPSAMPLINGS)

    images = keras.Input(input_shape, name="images")
    blocks = vgg16.BLOCKS if encoder == "vgg16" else _paper_blocks(filters)
    convolutions = [len(block) for block in blocks]
    x = images
    if padding == "valid":
        x = SizeCheck(*_valid_sizes(convolutions), name="size_check")(x)
    if include_preprocessing:
        x = _preprocess(x, encoder)

    skips = []
    for level, block in enumerate(blocks, start=1):
        for conv_name, width in block.items():
            x = vgg16.conv(
                x, width, conv_name, padding=padding, batch_norm=batch_norm and encoder is None
            )
        if level >= len(blocks) - 1:  # the end of the contracting path
            x = layers.Dropout(dropout, name=f"drop{level}")(x)
        features = x if encoder is None else _normalize(x, level)
        if level < len(blocks):
            skips.append(features)
            x = vgg16.pool(x, f"pool{level}", padding)
    x = features

    offsets = _valid_offsets(convolutions)
    for level in range(len(skips), 0, -1):
        width = filters[level - 1]
        x = _upsample(x, width, upsampling, level)
        x = _copy_and_crop(x, skips[level - 1], offsets[level - 1], padding, level)
        for number in (1, 2):
            x = vgg16.conv(
                x, width, f"up{level}_conv{number}", padding=padding, batch_norm=batch_norm
            )

    x = layers.Conv2D(
        num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="score"
    )(x)
    x = Predictions(classifier_activation, dtype="float32", name="predictions")(x)
    model = keras.Model(images, x, name=name)
    load_weights(model, "UNet", arguments)
    return model


def _check_filters(filters, encoder):
    """Return the filters as a tuple of `int`."""
    check_choice("encoder", encoder, (None, "vgg16"))
    check_filters(filters)
    if encoder == "vgg16" and len(filters) != len(vgg16.BLOCKS):
        raise ValueError(
            f"{spell('filters')} should hold {len(vgg16.BLOCKS)} numbers with "
            f"{spell('encoder', 'vgg16')}, one for each level of VGG16. Received: "
            f"{given('filters', filters)}"
        )
    return tuple(map(int, filters))


def _paper_blocks(filters):
    """Two convolutions a level, as in the paper's figure 1."""
    return [
        {f"conv{level}_1": width, f"conv{level}_2": width}
        for level, width in enumerate(filters, start=1)
    ]


def _preprocess(images, encoder):
    """Scale raw pixels: VGG's way for VGG's weights, else to [-1, 1]."""
    if encoder == "vgg16":
        return VGGPreprocessing(dtype="float32", name="preprocessing")(images)
    scale = layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="preprocessing")
    return scale(images)


def _normalize(x, level):
    """Bring VGG16's features, which reach into the hundreds, to what a fresh path learns from.

    Each pixel is normalised over its channels, then scaled (as in Liu, Rabinovich and Berg,
    ParseNet, 2016). With a first scale of 1/4 all classes begin about equally probable.
    """
    scale = keras.initializers.Constant(0.25)
    return layers.LayerNormalization(gamma_initializer=scale, name=f"norm{level}")(x)


def _upsample(x, width, upsampling, level):
    """The up-convolution: twice the height and width, and `width` channels."""
    settings = {"kernel_initializer": "he_normal", "name": f"upconv{level}"}
    if upsampling == "bilinear":
        x = BilinearCorners(name=f"upsample{level}")(x)
        return layers.Conv2D(width, 2, **settings)(x)
    return layers.Conv2DTranspose(width, 2, strides=2, **settings)(x)


def _copy_and_crop(x, skip, offset, padding, level):
    """Put the contracting path's features beside the upsampled ones."""
    if padding == "valid":
        # unpadded convolutions have shrunk x: it starts `offset` pixels into the skip
        skip = CropLike(offset, name=f"crop{level}")(skip, x)
    else:
        # pooling rounded up: x may be one longer at its end
        x = CropLike(name=f"crop{level}")(x, skip)
    return layers.Concatenate(name=f"concat{level}")([skip, x])


def _valid_offsets(convolutions):
    """Return where the upsampled map starts in each level's skip, unpadded.

    Args:
        convolutions: number of 3x3 convolutions of each contracting level.

    Returns:
        Offsets in pixels of each level but the deepest, then the margin that
        the whole network takes off each side of the image; the paper's network
        has 88, 40, 16, 4.
    """
    margin = convolutions[-1]
    offsets = []
    for count in reversed(convolutions[:-1]):
        offsets.insert(0, 2 * margin)
        margin = count + 2 * margin + 2  # contracting, deeper, and expanding convolutions
    return [*offsets, margin]


def _valid_sizes(convolutions):
    """Return the smallest image size with an output, and the step between fitting sizes."""
    margin = _valid_offsets(convolutions)[-1]
    step = 2 ** (len(convolutions) - 1)
    size = 0  # a fitting size: from the deepest map upwards, two pixels for each one below
    for count in reversed(convolutions):
        size = 2 * size + 2 * count
    return size + step * ((2 * margin - size) // step + 1), step
