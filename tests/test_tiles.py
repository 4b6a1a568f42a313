"""Tiles give exactly what the whole image gives."""

import functools
import itertools

import keras
import numpy as np
import pytest
from conftest import randomize

from keras_fcn import (
    FCN8s,
    FCN8sAtOnce,
    FCN16s,
    FCN32s,
    UNet,
    fully_convolutional,
    predict_image,
    vgg16,
)
from keras_fcn.inference.tiles import (
    View,
    boxes,
    check_tile_size,
    example_size,
    free_size,
    map_size,
    nearest_sizes,
    predict_piece,
    receptive_field_of,
    takes_size,
)

# scores, for a softmax of large ones would enlarge their rounding
SCORES = {"classifier_activation": None}
TINY = {"num_classes": 3, "fc_filters": 4, **SCORES}
NETWORKS = {
    "two levels": lambda: UNet(filters=(3, 4), num_classes=3, **SCORES),
    "four levels": lambda: UNet(filters=(2, 3, 4, 5), num_classes=2, batch_norm=True, **SCORES),
    "bilinear": lambda: UNet(filters=(3, 4, 5), num_classes=2, upsampling="bilinear", **SCORES),
    "sigmoid": lambda: UNet(filters=(3, 4), num_classes=1, classifier_activation="sigmoid"),
    "unpadded": lambda: UNet(filters=(3, 4, 5), num_classes=2, padding="valid", **SCORES),
    "vgg16": lambda: UNet(encoder="vgg16", filters=(2, 2, 2, 2, 2), num_classes=2, **SCORES),
    "fcn32s": lambda: FCN32s(**TINY),
    "fcn16s": lambda: FCN16s(**TINY),
    "fcn8s": lambda: FCN8s(**TINY),
    "at once": lambda: FCN8sAtOnce(**TINY),
    "published fcn8s": lambda: FCN8s(padding="valid", **TINY),
}


@pytest.fixture(scope="module")
def networks():
    """Each of `NETWORKS` by its name, of random weights, with VGG16 of 4 filters; built once."""
    blocks = tuple(dict.fromkeys(block, 4) for block in vgg16.BLOCKS)

    @functools.cache
    def build(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vgg16, "BLOCKS", blocks)
            model = NETWORKS[name]()
        randomize(model, np.random.default_rng(0), scale=0.3)
        return model

    return build


def check_tiles(model, rng, draws, sides, tile_sizes):
    """Compare random tiles of random images with the whole image."""
    for _ in range(draws):
        image = rng.integers(0, 256, (*rng.integers(*sides, 2), model.input_shape[-1]), "uint8")
        tile_size = tuple(rng.integers(*tile_sizes, 2))
        whole = predict_image(model, image)
        tiles = predict_image(model, image, tile_size=tile_size)
        message = f"image {image.shape}, tile_size={tile_size}"
        assert tiles.shape == whole.shape, message
        scale = abs(whole).max()
        assert abs(tiles - whole).max() <= 2e-6 * scale, message
        clear = np.ptp(np.sort(whole, -1)[..., -2:], axis=-1) > 1e-5 * scale
        same = tiles.argmax(-1) == whole.argmax(-1)
        assert same[clear].all(), message


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_what_the_whole_image_gives(name, networks, rng):
    check_tiles(networks(name), rng, draws=6, sides=(1, 260), tile_sizes=(24, 130))


def draw_network(rng):
    """Return a network with settings drawn at random, that computes in float64."""
    keras.config.set_dtype_policy("float64")
    arguments = {"padding": str(rng.choice(["same", "valid"])), "num_classes": 3, **SCORES}
    if rng.random() < 0.3:
        return rng.choice([FCN8s, FCN8sAtOnce, FCN16s, FCN32s])(fc_filters=4, **arguments)
    return UNet(
        filters=tuple(rng.integers(2, 5, rng.integers(2, 5)).tolist()),
        upsampling=str(rng.choice(["transpose", "bilinear"])),
        batch_norm=bool(rng.integers(2)),
        **arguments,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_tiles_of_random_networks(seed, narrow_vgg16):
    """500 draws of network, size and tile, exact but for the rounding of float64."""
    rng = np.random.default_rng(seed)
    model = draw_network(rng)
    randomize(model, rng, scale=0.3)
    for _ in range(50):
        image = rng.integers(0, 256, (*rng.integers(1, 160, 2), 3), "uint8")
        tile_size = tuple(rng.integers(max(image.shape) // 4 + 1, 150, 2))
        whole = predict_image(model, image)
        tiles = predict_image(model, image, tile_size=tile_size)
        message = f"image {image.shape}, tile_size={tile_size}"
        np.testing.assert_allclose(tiles, whole, atol=1e-9 * abs(whole).max(), err_msg=message)
        np.testing.assert_array_equal(tiles.argmax(-1), whole.argmax(-1), message)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_of_many_sizes(name, networks, rng):
    rng.random()  # other images than in the test above
    check_tiles(networks(name), rng, draws=12, sides=(1, 400), tile_sizes=(16, 200))
    check_tiles(networks(name), rng, draws=4, sides=(1, 40), tile_sizes=(1, 20))


def test_a_map_of_windows_is_tiled_in_its_own_grid(rng):
    layers = [
        keras.Input((12, 16, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(4, 3, strides=2),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="softmax"),
    ]
    model = fully_convolutional(keras.Sequential(layers))
    randomize(model, rng)
    check_tiles(model, rng, draws=8, sides=(16, 90), tile_sizes=(1, 12))


def test_a_map_is_cut_into_boxes_that_do_not_overlap():
    rows, columns = (slice(0, 2), slice(2, 4), slice(4, 5)), (slice(0, 4), slice(4, 7))
    assert list(boxes((5, 7), (2, 4))) == list(itertools.product(rows, columns))
    assert list(boxes((5, 7), (9, 7))) == [(slice(0, 5), slice(0, 7))]


@pytest.mark.parametrize(
    ("tile_size", "pair"),
    [
        (None, None),
        ("auto", "auto"),
        (1, (1, 1)),
        ((3, 40), (3, 40)),
        ([np.int64(40), 3], (40, 3)),
    ],
)
def test_tile_sizes(tile_size, pair):
    assert check_tile_size(tile_size) == pair


@pytest.mark.parametrize(
    ("height", "width", "padding"),
    [
        (4, 7, ((20, 20), (20, 21), (0, 0))),  # 44 pixels make 4, and 4 more 4 more
        (1, 8, ((20, 23), (20, 20), (0, 0))),
        (30, 61, ((20, 22), (20, 23), (0, 0))),
    ],
)
def test_an_unpadded_network_sees_a_mirrored_border(height, width, padding, rng):
    image = rng.integers(0, 256, (height, width, 3), "uint8")
    model = NETWORKS["unpadded"]()
    view, mirrored = View(model, image), np.pad(image, padding, "reflect")
    assert view.size == mirrored.shape[:2] and view.mirrored
    assert view.crop().dtype == "float32"
    np.testing.assert_array_equal(view.crop(), mirrored)
    part = np.s_[7:31, 22:40]
    np.testing.assert_array_equal(view.crop(*part), mirrored[part])
    assert map_size(model, view) == (height, width)


def test_a_padded_network_sees_the_image(rng):
    image = rng.integers(0, 256, (11, 7, 3), "uint8")
    model = NETWORKS["two levels"]()
    view = View(model, image)
    assert view.size == (11, 7) and not view.mirrored
    np.testing.assert_array_equal(view.crop(slice(2, 9), slice(1, 4)), image[2:9, 1:4])
    assert map_size(model, view) == (11, 7)


def stack(*layers):
    return keras.Sequential([keras.Input((None, None, 3)), *layers])


def test_sizes_that_a_model_takes():
    pools = stack(keras.layers.MaxPooling2D(8))
    assert not takes_size(pools, (7, 8)) and not takes_size(pools, (8, 7))
    assert takes_size(pools, (8, 8))
    assert not takes_size(NETWORKS["unpadded"](), (45, 44))  # its layers raise
    assert takes_size(NETWORKS["unpadded"](), (44, 48))
    assert nearest_sizes(NETWORKS["unpadded"](), (45, 48)) == [(44, 48), (48, 48)]
    assert example_size(pools) == ((256, 256), (32, 32))
    assert example_size(stack(keras.layers.MaxPooling2D(300))) == ((512, 512), (1, 1))
    assert example_size(stack(keras.layers.MaxPooling2D(2000))) is None
    of_one_height = keras.Sequential([keras.Input((9, None, 3)), keras.layers.MaxPooling2D(2)])
    assert example_size(of_one_height) == ((9, 256), (4, 128))


def test_a_model_is_freed_of_its_size_where_its_layers_do_not_need_it():
    free = UNet(filters=(2, 3))
    assert free_size(free) is free
    fixed = UNet(filters=(2, 3), input_shape=(16, 16, 3))
    assert free_size(fixed).input_shape == (None, None, None, 3)
    assert free_size(fixed) is free_size(fixed)
    flat = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert free_size(flat) is flat


def test_a_piece_is_made_of_as_much_of_the_image_as_reaches_it(rng):
    model = stack(keras.layers.Conv2D(2, 5, padding="same"), keras.layers.MaxPooling2D(2))
    field = receptive_field_of(model)
    assert receptive_field_of(model) is field
    view, seen = View(model, rng.integers(0, 256, (60, 80, 3), "uint8")), []

    def predict(part):
        seen.append(part)
        return np.asarray(model(part[None]))[0]

    piece = predict_piece(predict, field, view, (slice(10, 15), slice(0, 40)))
    # rows 20 to 29 of the convolution, two more on each side, all columns
    np.testing.assert_array_equal(seen, [view.crop(slice(18, 32))])
    np.testing.assert_allclose(piece, predict(view.crop())[10:15], atol=1e-5)


def test_averages_in_tiles(rng):
    model = NETWORKS["unpadded"]()
    randomize(model, rng)
    image = rng.integers(0, 256, (61, 90, 3), "uint8")
    for options in ({"test_time_augmentation": "dihedral"}, {"scales": (0.5, 1, 1.3)}):
        whole = predict_image(model, image, **options)
        tiles = predict_image(model, image, tile_size=(np.int64(17), 40), **options)
        np.testing.assert_allclose(tiles, whole, atol=2e-6)


def test_an_image_on_disk(tmp_path, rng):
    """A memory map is read in parts, and of the labels no probabilities are kept."""
    model = NETWORKS["two levels"]()
    randomize(model, rng)
    image = np.memmap(tmp_path / "image", "uint8", "w+", shape=(70, 90, 3))
    image[:] = rng.integers(0, 256, image.shape)
    labels = predict_image(model, image, tile_size=32, output="labels")
    np.testing.assert_array_equal(labels, predict_image(model, np.array(image)).argmax(-1))


def test_no_tiles_where_pixels_far_apart_meet():
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(images)
    model = keras.Model(images, keras.layers.Multiply()([images, pooled]))
    with pytest.raises(ValueError, match=r"Tiles need a model .*pool.* without `tile_size`"):
        predict_image(model, np.ones((8, 8, 3), "uint8"), tile_size=4)
