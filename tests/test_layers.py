import keras
import numpy as np
import pytest
from conftest import call

from keras_fcn import UNet
from keras_fcn.layers import (
    VGG_MEAN_BGR,
    BatchNormalization,
    Bilinear,
    CropLike,
    VGGPreprocessing,
)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_bilinear_upsampling_reproduces_a_ramp_at_pixel_centres(factor):
    ramp = np.arange(6.0)[None, :, None, None] * np.ones((1, 6, 6, 2))
    upsample = keras.layers.Conv2DTranspose(
        2, 2 * factor, factor, padding="same", use_bias=False, kernel_initializer=Bilinear()
    )
    expected = (np.arange(6 * factor) + 0.5) / factor - 0.5  # a coarse cell's centre has its value
    inside = slice(factor, -factor)
    result = call(keras.Sequential([keras.Input((6, 6, 2)), upsample]), ramp)[0, inside, inside]
    np.testing.assert_allclose(result[:, 0, 0], expected[inside], atol=1e-5)
    np.testing.assert_allclose(result, np.broadcast_to(result[:, :1, :1], result.shape), atol=1e-5)


def test_bilinear_kernel_is_the_authors():
    # surgery.py of the FCN authors: (1 - |i - center| / factor), for odd and even sizes
    odd = keras.ops.convert_to_numpy(Bilinear()((3, 3, 2, 2)))
    np.testing.assert_allclose(odd[:, :, 0, 0], np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))
    assert not odd[:, :, 0, 1].any()
    even = keras.ops.convert_to_numpy(Bilinear()((4, 4, 1, 1)))[:, :, 0, 0]
    np.testing.assert_allclose(even, np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]))


def test_crop_like_crops_from_its_offset(rng):
    x, reference = rng.random((1, 9, 8, 2)), rng.random((1, 4, 5, 7))
    result = CropLike(offset=3)(x.astype("float32"), reference.astype("float32"))
    np.testing.assert_allclose(result, x[:, 3:7, 3:8], rtol=1e-6)


def test_preprocessing_is_keras_vgg_preprocessing_with_the_authors_mean(rng):
    images = rng.uniform(0, 255, (1, 4, 5, 3)).astype("float32")
    expected = keras.applications.vgg16.preprocess_input(images.copy())
    expected += np.array((103.939, 116.779, 123.68)) - VGG_MEAN_BGR
    np.testing.assert_allclose(VGGPreprocessing()(images), expected, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
def test_preprocessing_makes_a_gray_image_its_rgb_copy(rng, channels):
    gray = rng.uniform(0, 255, (1, 4, 5, 1)).astype("float32")
    few = VGGPreprocessing()(gray.repeat(channels, axis=-1))
    np.testing.assert_array_equal(few, VGGPreprocessing()(gray.repeat(3, axis=-1)))


NORMALIZATIONS = [
    # settings, shape of the maps
    ({}, (2, 5, 7, 3)),
    ({"momentum": 0.9, "epsilon": 1e-2, "axis": 3}, (3, 4, 4, 3)),
    ({}, (1, 1, 1, 3)),  # one pixel has no variance
    ({"center": False}, (2, 5, 7, 3)),
    ({"scale": False}, (2, 5, 7, 3)),
    ({"axis": 1}, (2, 3, 5, 7)),
    ({}, (4, 6, 3)),
    ({"trainable": False}, (2, 5, 7, 3)),
    ({"dtype": "float16"}, (2, 5, 7, 3)),  # its numbers, too
    pytest.param(
        {"dtype": "float64"},
        (2, 5, 7, 3),
        marks=pytest.mark.filterwarnings("ignore:.*float64"),  # JAX has none
    ),
]


@pytest.mark.parametrize("settings, shape", NORMALIZATIONS)
def test_batch_normalization_learns_as_keras_does(rng, settings, shape):
    maps = 3 * rng.standard_normal(shape) + 2
    target = rng.standard_normal(shape)
    plain, ours = (
        _step_of(layer(name="norm", **settings), maps, target)
        for layer in (keras.layers.BatchNormalization, BatchNormalization)
    )
    for expected, result in zip(plain, ours, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def _step_of(layer, maps, target):
    """Return all of a network with two such layers after a step of SGD, and what it gives."""
    inputs = keras.Input(maps.shape[1:])
    x = keras.layers.Dense(maps.shape[-1], kernel_initializer="identity")(inputs)
    model = keras.Model(inputs, layer(x))
    model.compile(keras.optimizers.SGD(0.5), "mean_squared_error")
    model.train_on_batch(maps, target)
    return [*model.get_weights(), call(model, maps)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_batch_normalization_in_half_precision_keeps_its_numbers_whole(rng, policy):
    maps = (3 * rng.standard_normal((2, 8, 8, 3)) + 2).astype("float32")
    layer = BatchNormalization(dtype=policy, momentum=0)
    result = layer(maps, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == policy.removeprefix("mixed_")
    numbers = keras.ops.convert_to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_allclose(
        numbers, (maps - maps.mean((0, 1, 2))) / maps.std((0, 1, 2)), atol=0.03
    )
    np.testing.assert_allclose(layer.moving_mean, maps.mean((0, 1, 2)), rtol=1e-2)
    np.testing.assert_allclose(layer.moving_variance, maps.var((0, 1, 2)), rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.filterwarnings("ignore:.*float64")  # JAX has none
def test_batch_normalization_of_maps_that_are_not_cast(rng, dtype):
    maps = (3 * rng.standard_normal((2, 5, 7, 3)) + 2).astype(dtype)
    expected, result = (
        layer(autocast=False)(maps, training=True)
        for layer in (keras.layers.BatchNormalization, BatchNormalization)
    )
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one operation of TensorFlow")
def test_networks_learn_their_batch_normalization_in_one_operation(rng):
    import tensorflow as tf

    model = UNet((None, None, 1), filters=(2, 4), batch_norm=True)
    step = tf.function(lambda images: model(images, training=True))
    graph = step.get_concrete_function(tf.TensorSpec((None, None, None, 1))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    norms = sum(isinstance(layer, BatchNormalization) for layer in model.layers)
    assert kinds.count("FusedBatchNormV3") == norms > 0
    assert "SquaredDifference" not in kinds
