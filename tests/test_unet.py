import keras
import numpy as np
import pytest
from conftest import call, check_free_size, pass_through, randomize
from scipy.ndimage import center_of_mass

from keras_fcn import UNet
from keras_fcn.layers import BilinearCorners
from keras_fcn.private import without_numbers
from keras_fcn.unet import UPSAMPLINGS

SMALL = {"filters": (4, 6, 8)}


@pytest.mark.parametrize(
    ("arguments", "num_parameters"),
    [
        ({"num_classes": 2}, 31_031_810),
        ({"input_shape": (None, None, 1), "num_classes": 2, "padding": "valid"}, 31_030_658),
    ],
)
def test_parameters_are_the_papers(arguments, num_parameters):
    with without_numbers():
        assert UNet(**arguments).count_params() == num_parameters


@pytest.mark.parametrize(
    ("arguments", "input_size", "output_size"),
    [
        ({}, (572, 572), (388, 388)),
        ({}, (188, 204), (4, 20)),
        ({"encoder": "vgg16", "input_shape": (None, None, 3)}, (260, 244), (20, 4)),
        ({"filters": (4, 8)}, (18, 20), (2, 4)),
        ({"filters": (4, 8), "upsampling": "bilinear"}, (18, 20), (2, 4)),
    ],
)
def test_unpadded_sizes(arguments, input_size, output_size):
    model = UNet(**{"input_shape": (None, None, 1), "padding": "valid", **arguments})
    channels = model.input_shape[-1]
    assert model.compute_output_shape((1, *input_size, channels))[1:3] == output_size


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_norm": True},
        {"upsampling": "bilinear"},
        {"encoder": "vgg16", "filters": (4, 4, 4, 4, 4)},
    ],
)
def test_output_has_the_images_size(narrow_vgg16, rng, arguments):
    model = UNet(num_classes=3, **{**SMALL, **arguments})
    for height, width in [(1, 1), (1, 9), (2, 31), (33, 32), (40, 57)]:
        assert call(model, rng.random((1, height, width, 3))).shape == (1, height, width, 3)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_size_is_free_after_save_load_and_clone_and_in_fit(upsampling, rng, tmp_path):
    model = UNet(num_classes=3, batch_norm=True, upsampling=upsampling, **SMALL)
    check_free_size(model, rng, tmp_path)


def test_bilinear_upsampling_is_keras_resize(rng):
    """The mean of a pixel's corners is the pixel of the map twice as high and wide."""
    x = rng.random((2, 5, 1, 3)).astype("float32")
    corners = keras.ops.convert_to_numpy(BilinearCorners()(x))
    assert corners.shape == BilinearCorners().compute_output_shape(x.shape) == (2, 11, 3, 3)
    pixels = keras.ops.average_pool(corners, 2, strides=1)
    expected = keras.ops.image.resize(x, (10, 2), interpolation="bilinear")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(pixels), keras.ops.convert_to_numpy(expected), atol=1e-6
    )


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_image_moved_by_the_stride_moves_the_scores_by_it(rng, padding, upsampling):
    model = UNet(
        padding=padding, upsampling=upsampling, classifier_activation=None,
        include_preprocessing=False, **SMALL,
    )  # fmt: skip
    randomize(model, rng)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            layer.bias.assign(np.zeros(layer.filters))
    height, width = (96, 112) if padding == "valid" else (97, 110)
    images = np.zeros((2, height, width, 3), "float32")
    images[0, 40:45, 44:49] = images[1, 44:49, 48:53] = rng.random((5, 5, 3))
    scores = call(model, images)
    moved = np.roll(scores[0], (4, 4), axis=(0, 1))
    assert abs(scores).max() > 0
    np.testing.assert_allclose(scores[1, 4:, 4:], moved[4:, 4:], atol=1e-5 * abs(scores).max())


@pytest.mark.parametrize(
    ("padding", "margin", "shape"),
    [("same", 0, (72, 84)), ("same", 0, (71, 83)), ("valid", 20, (72, 84))],
)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_response_to_a_bright_pixel_is_centred_on_it(upsampling, shape, padding, margin):
    """Through the skips alone exactly, through the deepest level on average over its cell."""
    model = UNet(num_classes=1, padding=padding, upsampling=upsampling, classifier_activation=None,
                 include_preprocessing=False, **SMALL)  # fmt: skip
    pass_through(model)
    for level in (1, 2):  # the convolution after each concatenation reads channel 0 of the skip
        upconv = model.get_layer(f"upconv{level}")
        kernel = np.zeros(upconv.kernel.shape)
        kernel[:, :, 0, 0] = 1
        upconv.set_weights([kernel, np.zeros(upconv.filters)])

    def centres(model):
        positions = 32 + np.arange(4)  # each place of a cell once
        images = np.zeros((4, *shape, 3))
        images[np.arange(4), positions, positions, 0] = 1
        responses = call(model, images)[..., 0]
        expected = positions[:, None] - margin
        return np.array([center_of_mass(response) for response in responses]) - expected

    assert abs(centres(model)).max() < 1e-5
    for level in (1, 2):  # now channel 0 of the upsampled map
        conv = model.get_layer(f"up{level}_conv1")
        kernel, bias = conv.get_weights()
        channels = kernel.shape[2]
        conv.set_weights([np.roll(kernel, channels // 2, axis=2), bias])
    assert abs(centres(model).mean(axis=0)).max() < 0.5


@pytest.mark.parametrize(
    ("size", "nearest"), [(100, "188 and 204"), (203, "188 and 204"), (571, "556 and 572")]
)
def test_sizes_that_do_not_fit_the_unpadded_network_are_refused(size, nearest):
    model = UNet(input_shape=(None, None, 1), padding="valid", filters=(1, 1, 1, 1, 1))
    for shape in ((size, 300), (300, size)):
        with pytest.raises(ValueError, match=f"{size} that fit are {nearest}"):
            model(np.zeros((1, *shape, 1), "float32"))
    with pytest.raises(ValueError, match=f"{size} that fit are {nearest}"):
        UNet(input_shape=(size, 300, 1), padding="valid")


def test_every_size_that_fits_leaves_equal_margins():
    model = UNet(input_shape=(None, None, 1), padding="valid", filters=(1, 1, 1))
    check = model.get_layer("size_check")
    for size in range(check.minimum, check.minimum + 5 * check.step, check.step):
        output = model.compute_output_shape((1, size, size, 1))[1]
        assert size - output == 40
    assert check.step == 4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_scores_stay_float32_in_mixed_precision(rng, policy):
    keras.config.set_dtype_policy(policy)
    model = UNet(num_classes=3, **SMALL)
    assert model.get_layer("conv1_1").compute_dtype == policy.removeprefix("mixed_")
    assert model.get_layer("score").compute_dtype == "float32"
    output = model(rng.uniform(0, 255, (1, 9, 9, 3)).astype("float32"))
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


def test_raw_pixels_are_scaled_to_minus_one_to_one():
    model = UNet(**SMALL)
    scale = keras.Model(model.input, model.get_layer("preprocessing").output)
    images = np.array([0, 127.5, 255]).reshape(1, 1, 3, 1) * np.ones(3)
    np.testing.assert_allclose(call(scale, images)[0, 0, :, 0], [-1, 0, 1], atol=1e-6)


@pytest.mark.slow
def test_paper_size_network_learns_two_classes(rng):
    """Bright discs on a noisy ground, from strings to `compile` as a user gives them."""
    rows, columns = np.indices((16, 16))
    centres = rng.uniform(4, 12, (2, 32, 1, 1))
    labels = ((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2 < 12).astype("int32")
    images = rng.normal(90, 30, (32, 16, 16, 3)) + 80 * labels[..., None]
    model = UNet(num_classes=2)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[:24], labels[:24], batch_size=8, epochs=4, verbose=0)
    _, accuracy = model.evaluate(images[24:], labels[24:], verbose=0)
    assert accuracy > 0.95
    assert labels.mean() < 0.3  # saying "ground" everywhere would not do


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"padding": "full"}, "padding='full'"),
        ({"input_shape": (32, 32)}, "input_shape="),
        ({"encoder": "vgg19"}, "Did you mean 'vgg16'"),
        ({"upsampling": "bilinea"}, "Did you mean 'bilinear'"),
        ({"filters": 64}, "filters=64"),
        ({"filters": (64, 0)}, "filters=0"),
        ({"filters": (64, 128), "encoder": "vgg16"}, "5 numbers"),
        ({"weights": "imagenet"}, "conv3_3"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**arguments)


def test_numbers_of_numpy_are_numbers(tmp_path):
    model = UNet(
        (np.int64(32), None, np.int32(3)), np.int64(3), filters=np.array([4, 8]), batch_norm=True
    )
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").output_shape == (None, 32, None, 3)
    with pytest.raises(ValueError, match="num_classes=True"):
        UNet(num_classes=True)
