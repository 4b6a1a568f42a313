import gc
import weakref

import numpy as np
import pytest
from conftest import call, randomize

from keras_fcn import FCN32s, UNet, predict_image

SMALL = {"filters": (4, 6, 8), "num_classes": 3}


def test_whole_images_of_any_size(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    for shape in [(1, 1, 3), (31, 57, 3), (64, 40, 3)]:
        image = rng.integers(0, 256, shape).astype("uint8")
        result = predict_image(model, image)
        assert result.dtype == "float32"
        np.testing.assert_allclose(result, call(model, image[None])[0], atol=1e-5)


def test_gray_image_without_a_channel_axis(rng):
    model = UNet(input_shape=(None, None, 1), **SMALL)
    image = rng.integers(0, 256, (9, 12)).astype("uint8")
    np.testing.assert_array_equal(
        predict_image(model, image), predict_image(model, image[..., None])
    )


def test_weights_changed_later_count(rng):
    model = UNet(**SMALL)
    image = rng.integers(0, 256, (8, 8, 3))
    before = predict_image(model, image)
    randomize(model, rng)
    assert abs(predict_image(model, image) - before).max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (4, 40), (57, 83)])
def test_unpadded_network_covers_the_image_with_mirrored_borders(rng, shape):
    model = UNet(padding="valid", **SMALL)
    randomize(model, rng)
    image = rng.integers(0, 256, (*shape, 3)).astype("float32")
    result = predict_image(model, image)
    assert result.shape == (*shape, 3)
    # three levels take 20 pixels off each side; mirror generously, and take the image's place
    mirrored = np.pad(image, [(20, 60), (20, 60), (0, 0)], mode="reflect")
    expected = call(model, mirrored[None])[0, : shape[0], : shape[1]]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_published_fcn_needs_no_mirror(narrow_vgg16, rng):
    model = FCN32s(num_classes=3, fc_filters=4, padding="valid")
    assert predict_image(model, rng.random((21, 34, 3))).shape == (21, 34, 3)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8, 3), (0, 8, 3)])
def test_wrong_images_are_explained(shape):
    with pytest.raises(ValueError, match=r"\(height, width, 3\)"):
        predict_image(UNet(**SMALL), np.zeros(shape))


def test_compiled_functions_die_with_their_model(rng):
    model = UNet(**SMALL)
    predict_image(model, rng.random((8, 8, 3)))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(40, 128), (129, 300), (257, 511)])
def test_tiles_give_what_the_whole_image_gives(rng, shape, padding):
    model = UNet(padding=padding, **SMALL)  # sees 22 pixels far; tiles of 128 overlap by 32
    randomize(model, rng)
    image = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    np.testing.assert_allclose(
        predict_image(model, image, tile_size=128), predict_image(model, image), atol=1e-5
    )


@pytest.mark.parametrize("tile_size", [0, 96, 200])
def test_wrong_tile_size_is_explained(tile_size):
    with pytest.raises(ValueError, match=f"multiple of 32.*tile_size={tile_size}"):
        predict_image(UNet(**SMALL), np.zeros((8, 8, 3)), tile_size=tile_size)


def test_mirror_image_is_averaged_in(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    image = rng.integers(0, 256, (21, 34, 3)).astype("uint8")
    mirrored = predict_image(model, image[:, ::-1])[:, ::-1]
    expected = (predict_image(model, image) + mirrored) / 2
    result = predict_image(model, image, test_time_augmentation=True)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("tile_size", [None, 128])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_dihedral_average_turns_with_the_image(rng, padding, tile_size):
    """Every flip and rotation of an image gets the same prediction, flipped and rotated."""
    model = UNet(padding=padding, **SMALL)
    randomize(model, rng)
    image = rng.integers(0, 256, (23, 150, 3)).astype("uint8")
    options = {"tile_size": tile_size, "test_time_augmentation": "dihedral"}
    expected = predict_image(model, image, **options)
    for turn in (lambda x: np.rot90(x), lambda x: x[::-1], lambda x: x.swapaxes(0, 1)):
        result = predict_image(model, turn(image), **options)
        np.testing.assert_allclose(result, turn(expected), atol=1e-5)


def test_scales_are_averaged_at_the_size_of_the_image(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    image = np.full((21, 35, 3), 100.0) + np.linspace(0, 50, 35)[:, None]
    single = [predict_image(model, image, scales=[scale]) for scale in (0.6, 1, 2)]
    result = predict_image(model, image, scales=(0.6, 1, 2))
    np.testing.assert_allclose(result, np.mean(single, axis=0), atol=1e-6)
    np.testing.assert_allclose(single[1], predict_image(model, image), atol=1e-6)
    assert 1e-4 < abs(single[0] - single[1]).max()
    assert predict_image(model, np.zeros((1, 1, 3)), scales=[0.1]).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "options",
    [{"test_time_augmentation": "diherdal"}, {"scales": ()}, {"scales": [1, 0]}, {"scales": 2}],
    ids=str,
)
def test_wrong_averages_are_explained(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}` should be.*Received: {name}="):
        predict_image(UNet(**SMALL), np.zeros((8, 8, 3)), **options)
