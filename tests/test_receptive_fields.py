"""The arithmetic against what single lines of pixels change, and tiles against the whole."""

import math
import re
from fractions import Fraction

import keras
import numpy as np
import pytest
from conftest import call, narrow_keras_networks, randomize
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers

from keras_fcn import FCN8s, FCN8sAtOnce, FCN16s, FCN32s, UNet, fully_convolutional, receptive_field
from keras_fcn.layers import BilinearCorners, CropLike


def make_positive(model, rng):
    """Give a model weights that hand on every positive pixel, and nothing where all are zero."""
    for weight in model.weights:
        values = rng.uniform(0.5, 1.5, weight.shape)
        if len(weight.shape) == 4:
            weight.assign(values / values.sum((0, 1, 2), keepdims=True))
        else:
            weight.assign(values if weight.name in ("gamma", "moving_variance") else 0 * values)


def without_normalization(model):
    """The same network with the layers that hand on negative numbers left out."""
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            layers.Identity(name=layer.name)
            if isinstance(layer, layers.LayerNormalization)
            else layer.__class__.from_config(layer.get_config())
        ),
    )


def measure(model, field, size, output, axis):
    """First and last row (or column) of the image that changes an output row (or column)."""
    expected = field.window(output, output)[axis] or (0, 0)
    near = {b + step for b in np.clip(expected, 0, size - 1).tolist() for step in (-2, -1, 0, 1, 2)}
    near = sorted(near & set(range(size)))
    images = np.zeros((len(near), size, size if size < 100 else 64, model.input_shape[-1]))
    images[range(len(near)), near] = 1
    if axis == 1:
        images = images.swapaxes(1, 2)
    reached = call(model, images).take(output, 1 + axis).any((1, 2))
    reached = [pixel for pixel, seen in zip(near, reached, strict=True) if seen]
    return (reached[0], reached[-1]) if reached else None


def check_influence(model, size, outputs, holes=False):
    """Compare with what changes; a window with holes may step over the pixels at the border."""
    field = receptive_field(model)
    for axis in (0, 1):
        for output in outputs:
            window = expected = field.window(output, output)[axis]
            if window is not None:
                expected = tuple(np.clip(window, 0, size - 1).tolist())
            measured = measure(model, field, size, output, axis)
            if holes and expected != window:
                seen = set(measured or expected)
                assert expected[0] <= min(seen) <= max(seen) <= expected[1], (axis, output)
            else:
                assert measured == expected, (axis, output)


def check_tiles(model, rng, size, pieces):
    """Every piece of the result, from its tile, is the whole's."""
    field = receptive_field(model)
    image = rng.uniform(0, 1, (1, *size, model.input_shape[-1])).astype("float32")
    whole = call(model, image)
    for _ in range(pieces):
        starts = [rng.integers(0, n) for n in whole.shape[1:3]]
        stops = [rng.integers(s, n) + 1 for s, n in zip(starts, whole.shape[1:3], strict=True)]
        (top, bottom), (left, right) = (
            field.tile(start, stop, length, axis)
            for axis, (start, stop, length) in enumerate(zip(starts, stops, size, strict=True))
        )
        assert top % field.alignment[0] == left % field.alignment[1] == 0
        made = call(model, image[:, top:bottom, left:right])
        rows, columns = (
            slice(int(start - begin / stride), int(stop - begin / stride))
            for start, stop, begin, stride in zip(
                starts, stops, (top, left), field.stride, strict=True
            )
        )
        np.testing.assert_allclose(
            made[:, rows, columns],
            whole[:, starts[0] : stops[0], starts[1] : stops[1]],
            rtol=1e-4,
            atol=1e-5 * abs(whole).max(),
        )


SETTINGS = {"classifier_activation": None, "include_preprocessing": False, "num_classes": 2}
NETWORKS = {
    "unet": lambda: UNet(filters=(3, 4, 5), **SETTINGS),
    "unet_valid": lambda: UNet(filters=(3, 4, 5), padding="valid", **SETTINGS),
    "unet_bilinear": lambda: UNet(filters=(3, 4, 5), upsampling="bilinear", **SETTINGS),
    "unet_batch_norm": lambda: UNet(filters=(3, 4, 5), batch_norm=True, **SETTINGS),
    "unet_vgg16": lambda: UNet(encoder="vgg16", filters=(3, 3, 4, 4, 5), **SETTINGS),
    "fcn32s": lambda: FCN32s(fc_filters=4, **SETTINGS),
    "fcn16s": lambda: FCN16s(fc_filters=4, **SETTINGS),
    "fcn8s": lambda: FCN8s(fc_filters=4, **SETTINGS),
    "fcn8s_at_once": lambda: FCN8sAtOnce(fc_filters=4, **SETTINGS),
    "fcn8s_valid": lambda: FCN8s(fc_filters=4, padding="valid", **SETTINGS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_sees_what_the_arithmetic_says(name, rng, narrow_vgg16):
    model = without_normalization(NETWORKS[name]())
    make_positive(model, rng)
    outputs = [0, 13, 37] if name.startswith("unet") else [0, 37, 250, 319]
    check_influence(model, 608 if name.startswith("fcn") else 300, outputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_predicts_tiles_as_the_whole(name, rng, narrow_vgg16):
    model = NETWORKS[name]()
    randomize(model, rng, scale=0.5)
    large = name.startswith("fcn") or name == "unet_vgg16"
    check_tiles(model, rng, (701, 66) if large else (136, 92), pieces=6)
    check_tiles(model, rng, (50, 744) if large else (80, 164), pieces=6)


def test_unet_of_the_paper():
    field = receptive_field(UNet(input_shape=(None, None, 1), padding="valid"))
    assert (field.size, field.stride, field.alignment) == ((215, 215), (1, 1), (16, 16))
    # an image of 188x188 pixels has 4x4 outputs, and each sees it all
    assert field.window(0, 0) == field.window(3, 3) == ((0, 187), (0, 187))
    assert field.window(16, 3) == ((16, 203), (0, 187))


def test_sliding_vgg16_has_the_field_of_its_last_pool(monkeypatch):
    narrow_keras_networks(monkeypatch)
    vgg16 = keras.applications.VGG16(weights=None, input_shape=(64, 64, 3), classes=3)
    field = receptive_field(fully_convolutional(vgg16))
    # the 212 pixels of VGG16's pool5 (Araujo et al. 2019), and one stride more for fc1's 2x2
    assert (field.size, field.stride) == ((212 + 32, 212 + 32), (32, 32))
    rows = {row.name: row for row in field.layers}
    assert rows["block5_pool"].size == (212, 212)
    assert rows["block1_conv2"] == ("block1_conv2", (5, 5), (1, 1), (-2, -2))
    assert re.search(r"block5_pool +212 +32 +-90\n", str(field))


def stage(x, kind, kernel, stride, dilation, padding, factor):
    """One layer of a random network, or two branches merged."""
    settings = {"use_bias": False, "padding": padding}
    match kind:
        case "conv":
            return layers.Conv2D(2, kernel, strides=stride, **settings)(x)
        case "dilated":
            return layers.Conv2D(2, kernel, dilation_rate=dilation, **settings)(x)
        case "depthwise":
            return layers.DepthwiseConv2D(kernel[0], strides=stride[0], **settings)(x)
        case "separable":
            return layers.SeparableConv2D(2, kernel, dilation_rate=dilation, **settings)(x)
        case "max":
            return layers.MaxPooling2D(kernel, strides=stride, padding=padding)(x)
        case "average":
            return layers.AveragePooling2D(kernel, strides=stride, padding=padding)(x)
        case "transposed":
            return layers.Conv2DTranspose(2, kernel, strides=stride, **settings)(x)
        case "upsampling":
            return layers.UpSampling2D(factor)(x)
        case "corners":
            return BilinearCorners()(x)
        case "pad":
            return layers.ZeroPadding2D(((dilation[0], stride[1]), (kernel[0], 0)))(x)
        case "crop":
            return layers.Cropping2D(((dilation[0] - 1, stride[1]), (0, kernel[0])))(x)
        case "branches":
            left = layers.Conv2D(2, kernel, padding="same", use_bias=False)(x)
            right = layers.MaxPooling2D(factor, padding="same")(x)
            right = layers.Conv2DTranspose(2, kernel, strides=factor, **settings)(right)
            return layers.Concatenate()([left, CropLike()(right, left)])
        case "nested":
            inner = keras.Sequential([
                keras.Input((None, None, x.shape[-1])),
                layers.Conv2D(2, kernel, use_bias=False), layers.BatchNormalization(),
            ])  # fmt: skip
            return layers.Dropout(0.5)(inner(x) * 2.0)


KINDS = (
    "conv", "dilated", "depthwise", "separable", "max", "average", "transposed", "upsampling",
    "corners", "pad", "crop", "branches", "nested",
)  # fmt: skip
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
STAGES = st.tuples(
    st.sampled_from(KINDS), PAIRS, PAIRS, PAIRS, st.sampled_from(["same", "valid"]),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
)  # fmt: skip


def build(stages):
    images = x = keras.Input((None, None, 1))
    for one in stages:
        x = stage(x, *one)
    return keras.Model(images, x)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(STAGES, min_size=1, max_size=4), st.integers(60, 64))
def test_random_network_sees_what_the_arithmetic_says(stages, size):
    model = build(stages)
    make_positive(model, np.random.default_rng(0))
    field = receptive_field(model)
    # a size that the alignment divides: for others a strided layer may pad elsewhere
    alignment = math.lcm(*field.alignment)
    assume(alignment <= 100)
    size = -(-size // alignment) * alignment
    outputs = call(model, np.zeros((1, size, size, 1))).shape[1:3]
    middle = min(outputs) // 2
    places = {0, *range(max(middle - 1, 0), middle + 1), min(outputs) - 1}
    check_influence(model, size, sorted(places), holes=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(STAGES, min_size=1, max_size=5), st.integers(60, 95), st.integers(60, 95))
def test_random_network_predicts_tiles_as_the_whole(stages, height, width):
    model = build(stages)
    rng = np.random.default_rng(0)
    randomize(model, rng, scale=1)
    check_tiles(model, rng, (height, width), pieces=4)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3"])
def test_upsampling_sees_as_far_as_it_interpolates(interpolation, rng):
    for factor in (2, 3):
        images = keras.Input((24, 24, 1))
        model = keras.Model(
            images, layers.UpSampling2D(factor, interpolation=interpolation)(images)
        )
        field = receptive_field(model)
        for output in (30, 32):
            assert measure(model, field, 24, output, 0) == field.window(output, 0)[0]
        first, last = field.window(31, 0)[0]
        seen = measure(model, field, 24, 31, 0)  # at the middle of a pixel some weights are zero
        assert first <= seen[0] <= seen[1] <= last


def on_images(*stack, size=16):
    return keras.Sequential([keras.Input((size, size, 3)), *stack])


@pytest.mark.parametrize(
    "layer",
    [
        layers.GlobalAveragePooling2D(name="far"),
        layers.GlobalMaxPooling2D(keepdims=True, name="far"),
        layers.AdaptiveAveragePooling2D((2, 2), name="far"),
        layers.Flatten(name="far"),
        layers.Reshape((8, 32, 3), name="far"),
        layers.Permute((2, 1, 3), name="far"),
        layers.Resizing(8, 8, name="far"),
        layers.CenterCrop(8, 8, name="far"),
        layers.RandomCrop(8, 8, name="far"),
        layers.GroupNormalization(1, name="far"),
        layers.LayerNormalization(axis=(1, 2, 3), name="far"),
        layers.UnitNormalization(axis=1, name="far"),
        layers.Normalization(axis=(1, 3), name="far"),
        layers.Softmax(axis=(1, 2), name="far"),
        layers.BatchNormalization(axis=1, name="far"),
        layers.PReLU(name="far"),
        layers.Lambda(lambda x: x, name="far"),
        layers.Conv2D(2, 3, activation=lambda x: x / keras.ops.max(x), name="far"),
        layers.Activation(lambda x: x / keras.ops.max(x), name="far"),
        layers.EinsumDense("bhwc,hk->bkwc", (16, None, 3), name="far"),
        layers.MaxPooling2D(2, data_format="channels_first", name="far"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_in_which_far_pixels_meet_are_named(layer):
    with pytest.raises(ValueError, match="'far'"):
        receptive_field(on_images(layers.Conv2D(3, 1), layer))


def test_operations_in_which_far_pixels_meet_are_named():
    images = keras.Input((16, 16, 3), name="images")
    for far in (
        images - keras.ops.mean(images, axis=(1, 2), keepdims=True),
        keras.ops.flip(images, axis=1),
        keras.ops.flip(images, axis=2),
        keras.ops.cumsum(images, axis=2),
        images + np.ones((1, 16, 16, 1), "float32"),
        layers.Add()([images, layers.MaxPooling2D(16)(images)]),
    ):
        with pytest.raises(ValueError, match="Received: the layer"):
            receptive_field(keras.Model(images, far))
    near = keras.ops.relu(images * np.float32([1, 2, 3]) + 1) ** 2
    assert receptive_field(keras.Model(images, near)).size == (1, 1)


def test_models_that_are_no_single_map_are_refused():
    images = keras.Input((16, 16, 3))
    with pytest.raises(ValueError, match=r"Pass `keras.Model\(model.inputs"):
        receptive_field(keras.Model(images, [images * 2, images * 3]))
    vector = keras.Input((4,), name="vector")
    with pytest.raises(ValueError, match="'vector'"):
        receptive_field(keras.Model([images, vector], images + layers.Dense(3)(vector)))
    with pytest.raises(ValueError, match="functional"):
        receptive_field(keras.Sequential([layers.Conv2D(1, 1)]))


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Conv2DTranspose(1, 4, padding="same")],
        [layers.Conv2DTranspose(1, 2, strides=2, padding="same")],
        [layers.UpSampling2D(4), layers.Conv2D(1, 3, strides=2)],
        [layers.UpSampling2D(3), layers.AveragePooling2D(2)],
    ],
)
def test_every_phase_of_a_map_sees_what_the_arithmetic_says(stack, rng):
    model = keras.Sequential([keras.Input((24, 24, 1)), *stack])
    make_positive(model, rng)
    check_influence(model, 24, range(5, 11))


def test_a_window_holds_what_each_of_the_phases_sees():
    images = keras.Input((None, None, 1))
    field = receptive_field(keras.Model(images, layers.UpSampling2D(2)(images)))
    assert (field.size, field.stride) == ((2, 2), (Fraction(1, 2), Fraction(1, 2)))


def test_a_border_that_is_added_is_that_of_the_convolution():
    """No tile is larger than it must be, and none larger than the image."""
    images = keras.Input((None, None, 1))
    padded = layers.Conv2D(1, (3, 5))(layers.ZeroPadding2D(((1, 1), (2, 2)))(images))
    padded = receptive_field(keras.Model(images, padded))
    same = receptive_field(keras.Model(images, layers.Conv2D(1, (3, 5), padding="same")(images)))
    for field in (padded, same):
        assert (field.before, field.after, field.size) == ((1, 2), (1, 2), (3, 5))
        assert field.tile(0, 40, 40, axis=1) == (0, 40)
        assert field.tile(10, 20, 40, axis=1) == (8, 22)
    *_, last = str(same).splitlines()[:-3]
    assert last.split()[1:] == ["3x5", "1", "-1x-2"]


def test_augmentation_of_training_is_nothing_in_inference():
    model = on_images(layers.RandomFlip(), layers.RandomRotation(0.5), layers.Conv2D(1, 3))
    assert receptive_field(model).size == (3, 3)


def test_normalized_kernels_see_what_others_see():
    model = on_images(layers.SpectralNormalization(layers.Conv2D(1, 5, strides=2)))
    field = receptive_field(model)
    assert (field.size, field.stride) == ((5, 5), (2, 2))


def test_unet_without_crops_takes_multiples_of_its_alignment():
    images = keras.Input((None, None, 1))
    x = layers.MaxPooling2D(4)(images)
    x = layers.Conv2DTranspose(2, 4, strides=4)(x)
    field = receptive_field(keras.Model(images, layers.Concatenate()([x, images])))
    assert (field.size, field.alignment) == ((7, 7), (4, 4))
    assert field.window(5, 4) == ((4, 7), (4, 7))
