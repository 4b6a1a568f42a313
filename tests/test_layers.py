import keras
import numpy as np
import pytest
from conftest import call

from keras_fcn.layers import VGG_MEAN_BGR, Bilinear, CropLike, VGGPreprocessing


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
