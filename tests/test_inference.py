import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
from conftest import call, randomize

from keras_fcn import FCN32s, UNet, fully_convolutional, predict_image
from keras_fcn.inference.images import takes_bytes

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
    after = [60 + -size % 4 for size in shape]  # sizes that fit are multiples of 4
    mirrored = np.pad(image, [(20, after[0]), (20, after[1]), (0, 0)], mode="reflect")
    expected = call(model, mirrored[None])[0, : shape[0], : shape[1]]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_published_fcn_needs_no_mirror(narrow_vgg16, rng):
    model = FCN32s(num_classes=3, fc_filters=4, padding="valid")
    assert predict_image(model, 255 * rng.random((21, 34, 3))).shape == (21, 34, 3)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8, 3), (0, 8, 3)])
def test_wrong_images_are_explained(shape):
    with pytest.raises(ValueError, match=r"\(height, width, 3\)"):
        predict_image(UNet(**SMALL), np.zeros(shape))


def test_compiled_functions_die_with_their_model(rng):
    model = UNet(**SMALL)
    predict_image(model, 255 * rng.random((8, 8, 3)))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "tile_size", [0, -3, 1.5, "128", True, (128,), (64, 0), (1, 2, 3), [None, 3]]
)
def test_wrong_tile_size_is_explained(tile_size):
    with pytest.raises(ValueError, match=r"`tile_size` should be .* Received: tile_size="):
        predict_image(UNet(**SMALL), np.zeros((8, 8, 3)), tile_size=tile_size)


def test_mirror_image_is_averaged_in(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    image = rng.integers(0, 256, (21, 34, 3)).astype("uint8")
    mirrored = predict_image(model, image[:, ::-1])[:, ::-1]
    expected = (predict_image(model, image) + mirrored) / 2
    result = predict_image(model, image, test_time_augmentation=True)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("tile_size", [None, (31, 50)])
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
    [
        {"test_time_augmentation": "diherdal"},
        {"output": "label"},
        {"engine": "openvin"},
        {"precision": "int4"},
        *(
            {"scales": scales}
            for scales in [(), [1, 0], 2, (np.inf,), (np.nan,), ("1",), "1", (True,), (-1,)]
        ),
    ],
    ids=str,
)
def test_wrong_averages_are_explained(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}` should be.*Received: {name}="):
        predict_image(UNet(**SMALL), np.zeros((8, 8, 3)), **options)


@pytest.mark.parametrize("output", ["probabilities", "labels"])
def test_one_channel_of_a_sigmoid(rng, output):
    model = UNet(num_classes=1, filters=(4, 8), classifier_activation="sigmoid")
    randomize(model, rng)
    image = rng.integers(0, 256, (21, 30, 3), "uint8")
    expected = call(model, image[None])[0]
    if output == "labels":
        expected = expected[..., 0] > 0.5
    result = predict_image(model, image, output=output)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_labels_are_those_of_the_probabilities(rng):
    model = UNet(**SMALL)
    randomize(model, rng)
    image = rng.integers(0, 256, (50, 41, 3), "uint8")
    for options in ({}, {"scales": (0.5, 1)}, {"test_time_augmentation": True}):
        labels = predict_image(model, image, output="labels", **options)
        assert labels.dtype == "int32"
        np.testing.assert_array_equal(labels, predict_image(model, image, **options).argmax(-1))


@pytest.fixture
def classifier(rng):
    """A classifier of windows of 12 x 16 pixels, slid with a stride of 2."""
    layers = [
        keras.Input((12, 16, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    randomize(model, rng)
    return model


def test_map_of_windows_stays_in_its_own_grid(classifier, rng):
    image = rng.integers(0, 256, (20, 40, 3), "uint8")
    model = fully_convolutional(classifier)
    result = predict_image(model, image)
    assert result.shape == (5, 13, 5)
    for row, column in [(0, 0), (4, 12), (2, 7)]:
        window = image[2 * row : 2 * row + 12, 2 * column : 2 * column + 16]
        np.testing.assert_allclose(
            result[row, column], call(classifier, window[None])[0], atol=1e-5
        )
    for options in ({"scales": (1, 2)}, {"test_time_augmentation": True}):
        with pytest.raises(ValueError, match=r"makes a map of .* Predict without them"):
            predict_image(model, image, **options)


@pytest.mark.parametrize("shape", [(5, 40, 3), (11, 16, 3), (1, 1, 3)])
@pytest.mark.parametrize("tile_size", [None, 2])
def test_images_smaller_than_the_window_are_refused(classifier, shape, tile_size):
    model = fully_convolutional(classifier)
    with pytest.raises(ValueError, match=r"as large as the model's window. Received: "):
        predict_image(model, np.zeros(shape, "uint8"), tile_size=tile_size)


# Keras writes ONNX on TensorFlow without a further package
ONNX = [{"engine": "onnx"}] if keras.backend.backend() == "tensorflow" else []


def user_unet(size=(None, None)):
    """As in tutorials: what is upsampled has the size of its skip at even sizes alone."""
    images = keras.Input((*size, 3))
    skip = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(images)
    x = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.MaxPooling2D()(skip))
    x = keras.layers.Concatenate()([skip, keras.layers.Conv2DTranspose(4, 2, strides=2)(x)])
    return keras.Model(images, keras.layers.Conv2D(2, 1, activation="softmax")(x))


@pytest.mark.parametrize(
    ("build", "fixed", "shape"),
    [
        (lambda size: UNet((*size, 3), padding="valid", **SMALL), (92, 92), (57, 83)),
        (lambda size: UNet((*size, 3), **SMALL), (32, 32), (57, 83)),
        (lambda size: UNet((*size, 3), **SMALL), (None, 32), (57, 83)),
        (user_unet, (32, 32), (58, 84)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"tile_size": 16}, *ONNX])
def test_a_network_built_for_one_size_takes_others_everywhere(build, fixed, shape, options, rng):
    free, model = build((None, None)), build(fixed)
    randomize(free, rng)
    model.set_weights(free.get_weights())
    image = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    expected = predict_image(free, image)
    np.testing.assert_allclose(predict_image(model, image, **options), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(None, None), (32, 32)])
@pytest.mark.parametrize("options", [{}, {"tile_size": 16}])
def test_sizes_at_which_maps_do_not_fit_are_told_with_the_nearest_that_do(size, options):
    model = user_unet(size)
    with pytest.raises(ValueError, match="Crop it to 56x82 or pad it to 58x84"):
        predict_image(model, np.zeros((57, 83, 3), "uint8"), **options)
    with pytest.raises(ValueError, match="Crop it to 56x84 or pad it to 58x84"):
        predict_image(model, np.zeros((57, 84, 3), "uint8"), **options)


def test_a_layer_that_needs_its_size_is_not_fed_another(rng):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Dense(2)(keras.layers.Reshape((64, 3))(images))
    model = keras.Model(images, keras.layers.Reshape((8, 8, 2))(x))
    assert predict_image(model, np.zeros((8, 8, 3), "uint8")).shape == (8, 8, 2)
    for shape in [(16, 4, 3), (16, 16, 3)]:
        with pytest.raises(ValueError, match=r"built, 8x8 pixels.* Resize the image or cut it up"):
            predict_image(model, np.zeros(shape, "uint8"))


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64"])
def test_probabilities_are_float32_of_every_precision(policy, rng):
    images = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(2, 3, activation="softmax", dtype=policy, padding="same")
    model = keras.Model(images, layer(images))
    image = rng.random((8, 9, 3))
    result = predict_image(model, image)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, call(model, image[None])[0].astype("float32"), atol=1e-2)


def test_unpadded_network_inside_of_another_keeps_its_mirrored_border(rng):
    inner = UNet(padding="valid", **SMALL)
    randomize(inner, rng)
    images = keras.Input((None, None, 3))
    outer = keras.Model(images, keras.layers.Rescaling(0.5)(inner(images)))
    image = rng.integers(0, 256, (33, 47, 3), "uint8")
    expected = predict_image(inner, image) / 2
    np.testing.assert_allclose(predict_image(outer, image), expected, atol=1e-6)
    pooled = keras.Model(images, keras.layers.AveragePooling2D(2)(inner(images)))
    assert predict_image(pooled, np.zeros((92, 92, 3), "uint8")).shape[0] < 92  # never stretched


def with_nan(shape):
    image = np.zeros(shape, "float32")
    image[3, 5] = np.nan
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (with_nan((8, 8, 3)), "the first at row 3, column 5"),
        (np.full((8, 8, 3), 4095, "uint16"), "uint16 values from 4095 to 4095. Scale them"),
        (np.full((8, 8, 3), -1, "int16"), "int16 values from -1"),
        (np.full((8, 8, 3), 65535.0), "float64 values from 65535"),
        (np.ones((8, 8, 3), bool), r"`np.uint8\(255\) \* image`"),
        (np.full((8, 8, 3), "a"), "integers or floats. Received: an array of the dtype <U1"),
        (np.zeros((3, 8, 8)), "moveaxis"),
        (np.zeros((8, 8, 4)), r"`image\[..., :3\]`"),
        (np.zeros((1, 8, 8, 3)), r"`image\[0\]`"),
    ],
)
def test_images_that_cannot_be_meant_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        predict_image(UNet(**SMALL), image)


def test_floats_up_to_1_are_questioned(rng):
    image = rng.random((8, 8, 3))
    with pytest.warns(UserWarning, match=r"all but black.*Pass `255 \* image`"):
        predict_image(UNet(**SMALL), image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_image(UNet(include_preprocessing=False, **SMALL), image)
        predict_image(UNet(**SMALL), 255 * image)
        predict_image(UNet(**SMALL), 0 * image)


@pytest.mark.parametrize("channels", [2, 5])
def test_images_of_other_numbers_of_channels(channels, rng):
    model = UNet(input_shape=(None, None, channels), include_preprocessing=False, **SMALL)
    image = rng.normal(0, 1000, (9, 11, channels))
    assert predict_image(model, image).shape == (9, 11, 3)
    with pytest.raises(ValueError, match=rf"\(height, width, {channels}\)"):
        predict_image(model, image[..., 1:])


def test_scores_that_are_no_numbers_are_refused(rng):
    model = UNet(**SMALL)
    model.get_layer("score").set_weights([np.full((1, 1, 4, 3), np.nan), np.zeros(3)])
    with pytest.raises(
        ValueError, match=r"finite scores. Received: NaN or infinite ones at 64 of 64"
    ):
        predict_image(model, np.zeros((8, 8, 3), "uint8"))


def test_models_without_a_map_are_explained(classifier):
    with pytest.raises(ValueError, match="fully_convolutional"):
        predict_image(classifier, np.zeros((12, 16, 3), "uint8"))
    images = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    two = keras.Model(images, keras.layers.Add()(images))
    with pytest.raises(ValueError, match=r"one map .* of one image"):
        predict_image(two, np.zeros((12, 16, 3), "uint8"))


def begun_by(layer):
    return keras.Sequential([keras.Input((None, None, 3)), layer, keras.layers.Conv2D(2, 1)])


@pytest.mark.parametrize(
    ("layer", "white", "remedy"),
    [
        (keras.layers.Rescaling(1 / 65535), 65535, "65535 / 255"),
        (keras.layers.Rescaling(1 / 4095), 4095, "4095 / 255"),
        (keras.layers.Normalization(mean=[0.5] * 3, variance=[0.05] * 3), 1, "1 / 255"),
        (keras.layers.Normalization(mean=[120.0] * 3, variance=[4000.0] * 3), 255, "255 / 1"),
        (keras.layers.Normalization(mean=[3e4] * 3, variance=[1e8] * 3), 65535, "65535 / 255"),
    ],
)
def test_pixels_far_from_those_of_the_first_layer_are_questioned(layer, white, remedy, rng):
    model = begun_by(layer)
    pixels = rng.integers(0, 256, (9, 12, 3))
    image = pixels / 255 if white == 255 else pixels.astype("uint8")
    with pytest.warns(UserWarning, match=rf"takes pixels in \[0, {white}\].*\({remedy}\)"):
        predict_image(model, image)
    scaled = image * eval(remedy)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = predict_image(model, scaled)
    np.testing.assert_allclose(result, call(model, scaled[None])[0], atol=1e-5)


def test_which_models_take_bytes(narrow_vgg16):
    fcn = FCN32s(num_classes=3, fc_filters=4)
    assert takes_bytes(fcn)
    assert takes_bytes(UNet(padding="valid", **SMALL))
    assert takes_bytes(keras.Sequential([keras.Input((None, None, 3)), fcn]))
    assert not takes_bytes(FCN32s(num_classes=3, fc_filters=4, include_preprocessing=False))
    assert not takes_bytes(UNet(include_preprocessing=False, **SMALL))
