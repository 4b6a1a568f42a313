import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from keras_fcn import datasets
from keras_fcn.datasets import Augmentation, load, streams
from keras_fcn.datasets.files import read_pair
from keras_fcn.losses import WeightedCrossentropy, border_weights


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels).astype("uint8")).save(path, **options)


def write_pairs(images, masks, names, size=(6, 8), suffix=".png"):
    """Images and masks whose pixels name them: image number n is n everywhere."""
    for number, name in enumerate(names):
        save(images / f"{name}{suffix}", np.full((*size, 3), number))
        save(masks / f"{name}.png", np.arange(size[0] * size[1]).reshape(size) % 3)


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "masks", range(12))
    return tmp_path


def numbers(dataset):
    """The numbers of the images in a dataset, in order."""
    return [int(image.numpy().flat[0]) for image, _ in dataset]


def equal(first, second):
    return all(
        np.array_equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


# Folders


def test_elements_are_images_and_label_maps(folder):
    dataset = load(folder, "all")
    assert dataset.element_spec == (
        tf.TensorSpec((None, None, 3), "uint8"),
        tf.TensorSpec((None, None), "int32"),
    )
    image, labels = next(iter(dataset))
    assert image.shape == (6, 8, 3)
    np.testing.assert_array_equal(labels, np.arange(48).reshape(6, 8) % 3)
    assert numbers(dataset) == list(range(12))  # 2 comes before 10
    assert int(dataset.cardinality()) == 12


def test_iterators_end_at_once(folder):
    """No thread sleeps that tunes them, for which whoever drops one would wait up to a minute."""
    plain = load(folder, "all")
    crops = load(folder, "all", shuffle=True, crop_size=4, batch_size=2, cache=True)
    split = streams.open_split(folder, "all")
    made = [split.crops(4), split.crops(4, first=5), split.batches(2), split.labels()]
    for dataset in (plain, crops, datasets.add_border_weights(plain), *made):
        assert dataset.options().autotune.enabled is False


@pytest.mark.parametrize(
    ("images", "masks", "split"),
    [
        ("images", "masks", "all"),
        ("image", "label", "all"),
        ("images/train", "masks/train", "train"),
        ("train/images", "train/labels", "train"),
        ("train", "trainannot", "train"),
        ("val/images", "val/masks", "all"),
    ],
)
def test_layouts(tmp_path, images, masks, split):
    write_pairs(tmp_path / images, tmp_path / masks, "ab", suffix=".bmp")
    assert numbers(load(tmp_path, split)) == [0, 1]
    assert numbers(load(str(tmp_path), split)) == [0, 1]
    assert numbers(load((tmp_path / images, tmp_path / masks), "all")) == [0, 1]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("all[:25%]", [0, 1, 2]),
        ("all[25%:]", list(range(3, 12))),
        ("all[2:4]", [2, 3]),
        ("all[-2:]", [10, 11]),
        ("all[-25%:]", [9, 10, 11]),
        ("all[:-4%]", list(range(12))),  # of 12 images 4% are none
        (["3", "1"], [3, 1]),
        (["images/3.png", "4.png"], [3, 4]),
    ],
)
def test_splits(folder, split, expected):
    assert numbers(load(folder, split)) == expected


def test_file_list(folder):
    (folder / "val.txt").write_text("7\n5\n\n")
    assert numbers(load(folder, "val.txt")) == [7, 5]
    assert numbers(load(folder, folder / "val.txt")) == [7, 5]


def test_file_lists_name_images_of_one_split_only(tmp_path):
    for split in ("train", "val"):
        write_pairs(tmp_path / split, tmp_path / f"{split}annot", "ab")
    with pytest.raises(ValueError, match="differ between the splits"):
        load(tmp_path, ["a"])
    assert numbers(load((tmp_path / "val", tmp_path / "valannot"), ["b"])) == [1]


def test_names_with_dots_are_not_cut(tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "masks", ["frame.1", "frame.2"])
    assert numbers(load(tmp_path, ["frame.2"])) == [1]


def test_fractions_with_a_seed_cut_the_same_shuffled_order(folder):
    train = numbers(load(folder, "all[:75%]", split_seed=1))
    val = numbers(load(folder, "all[75%:]", split_seed=1))
    assert sorted(train + val) == list(range(12))
    assert train != sorted(train)
    assert train == numbers(load(folder, "all[:75%]", split_seed=1))
    assert train != numbers(load(folder, "all[:75%]", split_seed=2))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tain", "has the splits 'all'"),
        ("all[50%]", "with or without a slice"),
        ("all[5:5]", "at least one image"),
        ("all[-4%:]", "at least one image"),
        (["1", "99"], "'99'"),
        (["1", "1"], "once"),
        ([], "no name"),
        ("no.txt", "no file list"),
        (5, "name of a split, a list"),
    ],
    ids=str,
)
def test_splits_that_do_not_exist(folder, split, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(folder, split)


def test_unknown_source_and_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="Did you mean 'camvid'"):
        load("canvid", "train")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"laid out as one of(.|\n)*pictures"):
        load(tmp_path, "train")
    with pytest.raises(TypeError, match="takes colors, values, white, split_seed"):
        load(tmp_path, "all", color={})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda masks: save(masks / "1.png", np.zeros((6, 9))), "9 x 6 for an image of 8 x 6"),
        (lambda masks: (masks / "1.png").unlink(), "Every image should have a mask"),
        (lambda masks: save(masks / "1.png", np.eye(6, 8)[..., None] * [255, 0, 0]), "colors="),
    ],
)
def test_load_refuses_what_the_mask_doctor_refuses(folder, damage, message):
    damage(folder / "masks")
    with pytest.raises(ValueError, match=message):
        load(folder, "all")


def test_load_warns_of_labels_that_look_void(folder):
    for path in (folder / "masks").iterdir():
        save(path, np.arange(48).reshape(6, 8) % 2 * 254 + 1)
    with (
        pytest.warns(UserWarning, match="class 0 never occurs"),
        pytest.warns(UserWarning, match="ignore=255"),
    ):
        load(folder, "all")


def test_binary_masks_need_to_be_explained(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((6, 8)))
    save(tmp_path / "masks" / "a.png", np.eye(6, 8) * 255)
    with pytest.raises(ValueError, match=r"values=\{0: 0, 255: 1\}"):
        load(tmp_path, "all")
    _, labels = next(iter(load(tmp_path, "all", values={0: 0, 255: 1})))
    np.testing.assert_array_equal(labels, np.eye(6, 8))
    with pytest.warns(UserWarning, match="no label but 0 and the void label 255"):
        _, labels = next(iter(load(tmp_path, "all", ignore=255)))
    np.testing.assert_array_equal(labels, np.eye(6, 8) * 255)


@pytest.mark.parametrize("names", ["{}_mask.png", "masks/{}_mask.png", "masks/{}.gif"])
def test_crops_with_masks_of_0_and_255_in_the_ways_people_name_them(tmp_path, names):
    for number in range(3):
        images = tmp_path if names.startswith("{") else tmp_path / "images"
        save(images / f"{number}.png", np.full((6, 8), number))
        save(tmp_path / names.format(number), np.eye(6, 8) * 255)
    dataset = load(tmp_path, "all", values={0: 0, 255: 1})
    assert numbers(dataset) == [0, 1, 2]
    for _, labels in dataset:
        np.testing.assert_array_equal(labels, np.eye(6, 8))


def write_objects(folder):
    """Three images with three objects each, of which two touch; returns their instance map."""
    instance_map = np.zeros((20, 30), "uint16")
    instance_map[2:12, 2:10], instance_map[2:12, 10:20], instance_map[15:19, 25:29] = 1, 2, 3
    for name in ("first", "second", "third"):
        save(folder / name / "images" / f"{name}.png", np.zeros((20, 30, 3)))
        for number in (1, 2, 3):
            mask = (instance_map == number) * 255
            save(folder / name / "masks" / f"object{number}.png", mask)
    return instance_map


def test_a_folder_for_each_image_with_a_mask_for_each_object(tmp_path):
    instance_map = write_objects(tmp_path)
    with pytest.raises(ValueError, match="`instances='border'`"):
        load(tmp_path, "all")
    _, numbers = next(iter(load(tmp_path, "all", instances="numbers")))
    np.testing.assert_array_equal(numbers, instance_map)
    _, two = next(iter(load(tmp_path, "all[:1]", instances="two")))
    np.testing.assert_array_equal(two, instance_map > 0)
    _, border = next(iter(load(tmp_path, "all", instances="border", crop_size=10, batch_size=2)))
    assert border.shape == (2, 10, 10)
    with pytest.raises(ValueError, match="Leave out"):
        load(tmp_path, "all", instances="two", values={0: 0})


def test_instance_maps_are_asked_about_and_read_as_classes(tmp_path):
    rng = np.random.default_rng(0)
    for number, cells in enumerate((3, 5, 8)):
        mask = np.zeros((20, 90), "uint8")
        for cell in range(cells):
            mask[4:16, 10 * cell + 1 : 10 * cell + 9] = cell + 1
        save(tmp_path / "images" / f"{number}.png", rng.integers(0, 255, mask.shape))
        save(tmp_path / "masks" / f"{number}.png", mask)
    with pytest.warns(UserWarning, match="`instances='border'`"):
        load(tmp_path, "all")
    for kind, classes in (("two", {0, 1}), ("border", {0, 1, 2}), ("numbers", {0, 1, 2, 3})):
        _, labels = next(iter(load(tmp_path, "all", instances=kind)))
        assert set(np.unique(labels)) <= classes
        assert (labels.numpy() > 0).any()


def test_border_weights_of_objects_that_touch(tmp_path):
    instance_map = write_objects(tmp_path)
    dataset = load(tmp_path, "all", instances="numbers", batch_size=2)
    _, labels, weights = next(iter(datasets.add_border_weights(dataset, instances="two")))
    np.testing.assert_array_equal(labels[0], instance_map > 0)
    np.testing.assert_array_equal(weights[1], border_weights(instance_map))
    assert weights.numpy()[0, 5, 9] > 10  # where they touch


def test_names_win_over_folders_of_the_same_name(tmp_path, monkeypatch, data_dir):
    write_pairs(tmp_path / "shapes" / "images", tmp_path / "shapes" / "masks", "ab")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"For the folder write '\./shapes'"):
        assert datasets.resolve_source("shapes") == "shapes"
    assert datasets.resolve_source("shapes/cells") == "shapes/cells"
    assert numbers(load("./shapes", "all")) == [0, 1]
    assert numbers(load(tmp_path / "shapes", "all")) == [0, 1]
    with pytest.warns(UserWarning, match="data set"):
        image, _ = next(iter(load("shapes", "val[:1]", data_dir=data_dir)))
    assert image.shape == (96, 96, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({1, 2, 3}, r"class 0 never occurs.*`values=\{1: 0, 2: 1\}`"),
        ({0, 2, 3}, "Every class below the largest"),
        ({0, 1, 2}, None),
    ],
)
def test_classes_that_never_occur_are_told(tmp_path, recwarn, labels, message):
    pixels = np.resize(sorted(labels), (6, 8))
    save(tmp_path / "images" / "a.png", np.zeros((6, 8)))
    save(tmp_path / "masks" / "a.png", pixels)
    load(tmp_path, "all")
    told = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert bool(told) == (message is not None)
    assert message is None or re.search(message, told[0])


@pytest.mark.parametrize("bands", [2, 5])
def test_images_of_other_bands(tmp_path, rng, bands):
    pixels = rng.integers(0, 256, (20, 30, bands)).astype("uint8")
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", pixels)
    tifffile.imwrite(tmp_path / "images" / "b.tif", pixels, photometric="minisblack")
    for name in "ab":
        save(tmp_path / "masks" / f"{name}.png", np.arange(600).reshape(20, 30) % 2)
    dataset = load(tmp_path, "all", batch_size=2)
    assert dataset.element_spec[0].shape[-1] == bands
    for image in next(iter(dataset))[0]:
        np.testing.assert_array_equal(image, pixels)
    save(tmp_path / "images" / "b.tif", pixels[..., 0])
    with pytest.raises(ValueError, match="1 bands, and"):
        load(tmp_path, "all")


def test_white_goes_to_every_image(tmp_path):
    pixels = np.linspace(0, 4095, 48).reshape(6, 8).astype("uint16")
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.tif")
    save(tmp_path / "masks" / "a.png", np.eye(6, 8))
    with pytest.warns(UserWarning, match="`white=4095`"):
        load(tmp_path, "all")
    image, _ = next(iter(load(tmp_path, "all", white=4095)))
    np.testing.assert_array_equal(image[..., 0], np.rint(pixels / 4095 * 255))


# Files


def pair(tmp_path, image, mask, suffix=".tif", **options):
    image_path, mask_path = tmp_path / f"image{suffix}", tmp_path / "mask.png"
    image.save(image_path, **options)
    mask.save(mask_path)
    return image_path, mask_path


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_modes_of_images(tmp_path, mode, channels):
    paths = pair(tmp_path, Image.new("RGB", (8, 6), "white").convert(mode), Image.new("L", (8, 6)))
    image, labels = read_pair(*paths)
    assert image.shape == (6, 8, channels)
    assert image.dtype == np.uint8
    assert (image == 255).all()
    assert labels.shape == (6, 8)
    assert read_pair(*paths, channels=4 - channels)[0].shape == (6, 8, 4 - channels)


def test_16_bit_tiff(tmp_path):
    pixels = np.linspace(0, 4095, 48).reshape(6, 8).astype("uint16")
    paths = pair(tmp_path, Image.fromarray(pixels), Image.new("L", (8, 6)))
    with pytest.warns(UserWarning, match="`white=4095`"):
        image, _ = read_pair(*paths)
    assert image.max() == 16  # 4095 of 65535
    image, _ = read_pair(*paths, white=4095)
    np.testing.assert_array_equal(image[..., 0], (pixels / 4095 * 255).round())
    with pytest.raises(ValueError, match=r"a pixel of 4095 and white=1023"):
        read_pair(*paths, white=1023)


@pytest.mark.parametrize(
    ("orientation", "mask_size", "upright"),
    [(6, (6, 8), True), (6, (8, 6), False), (3, (8, 6), True), (1, (8, 6), False)],
)
def test_exif_turns_images_that_match_their_masks_turned(
    tmp_path, rng, orientation, mask_size, upright
):
    pixels = rng.integers(0, 256, (6, 8), "uint8")
    exif = Image.Exif()
    exif[0x0112] = orientation
    paths = pair(tmp_path, Image.fromarray(pixels), Image.new("L", mask_size), ".png", exif=exif)
    image, labels = read_pair(*paths)
    turned = {6: np.rot90(pixels, -1), 3: np.rot90(pixels, 2)}.get(orientation)
    np.testing.assert_array_equal(image[..., 0], turned if upright else pixels)
    assert image.shape[:2] == labels.shape


def test_palette_masks_are_read_as_indices(tmp_path):
    mask = Image.fromarray(np.arange(48).reshape(6, 8).astype("uint8") % 3, mode="P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    paths = pair(tmp_path, Image.new("L", (8, 6)), mask)
    expected = np.arange(48).reshape(6, 8) % 3
    np.testing.assert_array_equal(read_pair(*paths)[1], expected)
    table = {(0, 128, 0): 0, (128, 0, 0): 1, (0, 0, 0): 2}
    np.testing.assert_array_equal(read_pair(*paths, colors=table)[1], 2 - expected)


def test_color_tables(tmp_path, rng):
    palette = np.array([[0, 0, 0], [200, 10, 0], [0, 10, 200]], "uint8")
    labels = rng.integers(0, 3, (6, 8))
    paths = pair(tmp_path, Image.new("L", (8, 6)), Image.fromarray(palette[labels]))
    np.testing.assert_array_equal(read_pair(*paths, colors=palette)[1], labels)
    table = {(0, 0, 0): 255, (200, 10, 0): 0, (0, 10, 200): 7}
    np.testing.assert_array_equal(read_pair(*paths, colors=table)[1], np.array([255, 0, 7])[labels])
    with pytest.raises(ValueError, match=r"\(0, 10, 200\) besides"):
        read_pair(*paths, colors=palette[:2])
    for wrong in ([[0, 0, 300]], {}, {(0, 0): 1}, [[0, 0, 0], [0, 0, 0]]):
        with pytest.raises(ValueError, match="colo"):
            read_pair(*paths, colors=wrong)


def test_gray_and_color_images_together_become_rgb(tmp_path):
    for name, mode in (("a", "L"), ("b", "RGB")):
        path = tmp_path / "images" / f"{name}.png"
        save(tmp_path / "masks" / f"{name}.png", np.arange(4).reshape(2, 2))
        path.parent.mkdir(exist_ok=True)
        Image.new(mode, (2, 2)).save(path)
    assert load(tmp_path, "all").element_spec[0].shape[-1] == 3
    assert load(tmp_path, ["a"]).element_spec[0].shape[-1] == 1


# Batches, crops, order


def test_batches_are_padded_to_the_largest_with_the_ignore_label(tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "masks", "a", size=(4, 9))
    write_pairs(tmp_path / "images", tmp_path / "masks", "b", size=(6, 5))
    (batch,) = load(tmp_path, "all", batch_size=2, ignore=99)
    images, labels = (tensor.numpy() for tensor in batch)
    assert images.shape == (2, 6, 9, 3)
    assert (labels[0, :4] != 99).all()
    assert (labels[0, 4:] == 99).all()
    assert (labels[1, :, 5:] == 99).all()
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32


@pytest.mark.parametrize("crop_size", [1, 5, 7, 20])
@pytest.mark.parametrize("augment", [None, Augmentation(rotation=20, elastic=2)])
def test_crops_have_one_size(folder, crop_size, augment):
    dataset = load(folder, "all", batch_size=5, crop_size=crop_size, augment=augment)
    assert dataset.element_spec[1].shape == (None, crop_size, crop_size)
    assert [len(images) for images, _ in dataset] == [5, 5, 2]
    (images, labels), *_ = dataset
    assert images.shape == (5, crop_size, crop_size, 3)
    assert set(np.unique(labels)) <= {0, 1, 2, 255}
    assert (labels.numpy() == 255).any() == (crop_size > 6 or augment is not None) or crop_size < 6


def test_central_and_random_crops(tmp_path, rng):
    pixels = rng.integers(0, 256, (9, 13, 3))
    save(tmp_path / "images" / "a.png", pixels)
    save(tmp_path / "masks" / "a.png", pixels[..., 0] // 100)
    ((image, labels),) = load(tmp_path, "all", crop_size=3)
    np.testing.assert_array_equal(image, pixels[3:6, 5:8])
    np.testing.assert_array_equal(labels, pixels[3:6, 5:8, 0] // 100)
    dataset = load(tmp_path, "all", crop_size=3, shuffle=True, seed=0)
    windows = {
        pixels[i : i + 3, j : j + 3].astype("uint8").tobytes(): (i, j)
        for i in range(7)
        for j in range(11)
    }
    places = {windows[image.numpy().tobytes()] for _ in range(60) for image, _ in dataset}
    assert len(places) > 30
    assert {i for i, _ in places} == set(range(7))


@pytest.mark.parametrize("cache", [False, True])
def test_the_same_seed_gives_the_same_stream(folder, cache):
    options = {
        "shuffle": True,
        "crop_size": 5,
        "augment": Augmentation(rotation=20, brightness=0.2),
        "cache": cache,
    }
    first, again = (load(folder, "all", seed=1, **options) for _ in range(2))
    epochs = [list(first) for _ in range(2)]
    assert equal(epochs[0], list(again))
    assert equal(epochs[1], list(again))
    assert not equal(*epochs)
    assert not equal(epochs[0], list(load(folder, "all", seed=2, **options)))


def test_shuffling_gives_every_image_once(folder):
    order = numbers(load(folder, "all", shuffle=True, seed=0))
    assert order != list(range(12))
    assert sorted(order) == list(range(12))
    assert sorted(numbers(load(folder, "all", shuffle=True, deterministic=False))) == sorted(order)


def test_trains_a_keras_model(folder):
    import keras

    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    model.compile("sgd", loss)
    history = model.fit(load(folder, "all", batch_size=4, crop_size=4), shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"][0])


@pytest.mark.parametrize("name", ["batch_size", "crop_size"])
def test_sizes_are_positive(folder, name):
    with pytest.raises(ValueError, match=f"`{name}` should be an integer of at least 1"):
        load(folder, "all", **{name: 0})


# TFDS


@pytest.fixture
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def few_shapes(monkeypatch):
    from keras_fcn.datasets import shapes

    monkeypatch.setattr(shapes, "EXAMPLES", {"train": 4, "val": 2})


@pytest.mark.parametrize(
    ("name", "channels", "labels"), [("cells", 1, {0, 1}), ("street", 3, {0, 1, 2, 3, 4, 255})]
)
def test_shapes(few_shapes, data_dir, name, channels, labels):
    dataset = load(f"shapes/{name}", "train", data_dir=data_dir)
    examples = list(dataset)
    assert len(examples) == 4
    for image, label_map in examples:
        assert image.shape == (96, 96, channels)
        assert label_map.shape == (96, 96)
        assert label_map.dtype == tf.int32
    assert set(np.unique([label_map for _, label_map in examples])) == labels
    assert len(datasets.SOURCES["shapes"].classes[name]) == len(labels - {255})
    assert int(load(f"shapes/{name}", "val[:50%]", data_dir=data_dir).cardinality()) == 1
    rebuilt = load(f"shapes/{name}", "train", data_dir=data_dir / "again")
    assert equal(examples, list(rebuilt))


def test_camvid_from_a_folder(tmp_path, data_dir):
    import keras_fcn.datasets.camvid  # noqa: F401

    for split, names in (("train", "abc"), ("val", "d")):
        write_pairs(tmp_path / split, tmp_path / f"{split}annot", names)
    dataset = load("camvid", "train[:67%]", data_dir=data_dir, manual_dir=tmp_path)
    assert numbers(dataset) == [0, 1]
    assert len(datasets.SOURCES["camvid"].classes) == datasets.SOURCES["camvid"].ignore == 11
    example = next(iter(tfds.load("camvid", split="val", data_dir=data_dir)))
    assert example["name"].numpy() == b"d"
    assert example["label"].shape == (6, 8, 1)
    info = tfds.builder("camvid", data_dir=data_dir).info
    assert info.features["label"].names[11] == "void"
    assert set(info.splits) == {"train", "val"}
    (batch,) = load("camvid", "val", data_dir=data_dir, crop_size=20, batch_size=1)
    assert batch[1].numpy().max() == 11  # padding is CamVid's own void


def test_isbi2012_from_slices_and_from_stacks(tmp_path, data_dir, rng):
    images = rng.integers(0, 256, (3, 6, 8)).astype("uint8")
    labels = (rng.integers(0, 2, (3, 6, 8)) * 255).astype("uint8")
    for number in range(3):
        save(tmp_path / "slices" / "image" / f"{number}.png", images[number])
        save(tmp_path / "slices" / "label" / f"{number}.png", labels[number])
    (tmp_path / "stacks").mkdir()
    for name, stack in (("volume", images), ("labels", labels)):
        first, *rest = map(Image.fromarray, stack)
        first.save(tmp_path / "stacks" / f"train-{name}.tif", save_all=True, append_images=rest)
    for kind in ("slices", "stacks"):
        dataset = load("isbi2012", "train", data_dir=data_dir / kind, manual_dir=tmp_path / kind)
        for number, (image, label_map) in enumerate(dataset):
            np.testing.assert_array_equal(image[..., 0], images[number])
            np.testing.assert_array_equal(label_map, labels[number] == 255)
        assert number == 2


def test_nuclei_from_a_folder(tmp_path, data_dir):
    """The border is what of a nucleus is near another, no gap; the instance map stays."""
    from keras_fcn.datasets.nuclei import validation_images

    instance_map = np.zeros((20, 30), "uint16")
    instance_map[2:12, 2:10] = 300  # the next nucleus begins two pixels on
    instance_map[2:12, 11:20] = 7
    instance_map[15:19, 25:29] = 1  # far from both
    for number in range(10):
        save(tmp_path / "images" / f"{number}.png", np.full((20, 30), number))
        (tmp_path / "instances").mkdir(exist_ok=True)
        Image.fromarray(instance_map).save(tmp_path / "instances" / f"{number}.png")
    options = {"data_dir": data_dir, "manual_dir": tmp_path}
    train, val = (load("nuclei", split, **options) for split in ("train", "val"))
    image, labels = next(iter(train))
    assert image.shape == (20, 30, 3)
    expected = (instance_map > 0).astype(int)
    expected[2:12, [9, 11]] = 2
    np.testing.assert_array_equal(labels, expected)
    validating = np.flatnonzero(validation_images([(20, 30)] * 10)).tolist()
    assert numbers(val) == validating and len(validating) == 2
    assert numbers(train) == [number for number in range(10) if number not in validating]
    _, two = next(iter(load("nuclei/two", "train", **options)))
    np.testing.assert_array_equal(two, instance_map > 0)
    example = next(iter(tfds.load("nuclei", split="val", data_dir=data_dir)))
    np.testing.assert_array_equal(example["instances"][..., 0], instance_map)


def test_nuclei_as_they_are_published(tmp_path, data_dir):
    instance_map = write_objects(tmp_path / "stage1_train")
    options = {"data_dir": data_dir, "manual_dir": tmp_path}
    image, numbers = next(iter(load("nuclei", "train", instances="numbers", **options)))
    assert image.shape == (20, 30, 3)
    np.testing.assert_array_equal(numbers, instance_map)
    image, labels = next(iter(load("nuclei", "train", **options)))
    assert set(np.unique(labels)) == {0, 1, 2}
    with pytest.raises(ValueError, match="nuclei numbers objects"):
        load("shapes/cells", "train", data_dir=data_dir, instances="two")


def test_a_fifth_of_every_size_of_nuclei_validates():
    from keras_fcn.datasets.nuclei import validation_images

    sizes = np.random.default_rng(0).permutation([(256, 256)] * 50 + [(520, 696)] * 25)
    chosen = validation_images(sizes)
    assert chosen.sum() == 15
    assert chosen[(sizes == (256, 256)).all(axis=1)].sum() == 10


@pytest.mark.parametrize("name", ["camvid", "isbi2012", "nuclei", "voc_segmentation/2012"])
def test_builders_say_what_their_folder_should_hold(tmp_path, data_dir, name):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="should hold"):
        load(name, "train", data_dir=data_dir, manual_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="http"):
        load(name, "train", data_dir=data_dir)


@pytest.fixture
def devkit(tmp_path, monkeypatch):
    from keras_fcn.datasets import voc

    monkeypatch.setattr(voc, "SEG11VALID", 2)
    for year in ("VOC2011", "VOC2012"):
        for name in "abcde":
            save(tmp_path / year / "JPEGImages" / f"{name}.jpg", np.full((6, 8, 3), 90))
            mask = Image.fromarray(np.tile(np.uint8([0, 20, 255, 0]), (6, 2)), mode="P")
            mask.putpalette((np.arange(768) % 256).astype("uint8").tobytes())
            path = tmp_path / year / "SegmentationClass" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            mask.save(path)
        lists = tmp_path / year / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\nb\n")
        (lists / "val.txt").write_text("c\nd\ne\n")
    (tmp_path / "sbd_train.txt").write_text("a\nd\n")
    return tmp_path


def test_voc(devkit, data_dir):
    for config, split, count in (
        ("2012", "train", 2),
        ("2011", "val", 3),
        ("2011", "seg11valid", 2),
    ):
        dataset = load(f"voc_segmentation/{config}", split, data_dir=data_dir, manual_dir=devkit)
        examples = list(dataset)
        assert len(examples) == count
        np.testing.assert_array_equal(examples[0][1][0], [0, 20, 255, 0] * 2)
    names = [
        example["name"].numpy()
        for example in tfds.load("voc_segmentation/2011", split="seg11valid", data_dir=data_dir)
    ]
    assert names == [b"c", b"e"]


def test_seg11valid_checks_its_lists():
    from keras_fcn.datasets.voc import check_disjoint, seg11valid

    val = [f"2008_{number:06}" for number in range(1112)]
    sbd = val[736:] + [f"2010_{number:06}" for number in range(100)]
    assert seg11valid(val, sbd) == val[:736]
    with pytest.raises(ValueError, match="735"):
        seg11valid(val, sbd + val[:1])
    check_disjoint(val[:736], sbd)
    with pytest.raises(ValueError, match="1 images in both"):
        check_disjoint(val[:737], sbd)


@pytest.mark.parametrize(
    ("name", "features", "stored", "expected"),
    [
        ("oxford_iiit_pet", ("image", "segmentation_mask"), [1, 2, 3], [0, 1, 2]),
        ("cityscapes", ("image_left", "segmentation_label"), [7, 0, 26], [0, 255, 13]),
        ("scene_parse150", ("image", "annotation"), [0, 1, 100], [255, 0, 99]),
    ],
)
def test_catalogue_in_the_same_form(name, features, stored, expected):
    channels = 3 if name == "scene_parse150" else 1
    size = (1024, 2048) if name == "cityscapes" else (5, 3)  # the one size that TFDS admits
    image = np.full((*size, 3), 9, "uint8")
    mask = np.zeros((*size, channels), "uint8")
    mask[..., 0] = np.resize(stored, size)
    encoded = [tf.io.encode_png(pixels).numpy() for pixels in (image, mask)]

    def as_dataset(self, *args, **kwargs):
        columns = {key: [value] * 3 for key, value in zip(features, encoded, strict=True)}
        return tf.data.Dataset.from_tensor_slices(columns)

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        batches = list(load(name, "train", batch_size=2))
    assert [len(images) for images, _ in batches] == [2, 1]
    for images, labels in batches:
        assert images.dtype == tf.uint8
        assert labels.dtype == tf.int32
        np.testing.assert_array_equal(images[0], image)
        np.testing.assert_array_equal(labels[0], np.resize(expected, size))


def test_catalogue_with_the_mock_data_of_tfds():
    with tfds.testing.mock_data(num_examples=3):
        images, labels = next(iter(load("cityscapes", "train[:2]", batch_size=2, crop_size=64)))
    assert images.shape == (2, 64, 64, 3)
    assert labels.shape == (2, 64, 64)
    assert set(np.unique(labels)) <= {*range(19), 255}


def test_labels_of_the_catalogue():
    sources = datasets.SOURCES
    pets = sources["oxford_iiit_pet"]
    assert pets.to_labels(tf.constant([1, 2, 3])).numpy().tolist() == [0, 1, 2]
    streets = sources["cityscapes"]
    labels = streets.to_labels(tf.range(256)).numpy()
    assert labels[[7, 26, 33]].tolist() == [
        streets.classes.index(name) for name in ("road", "car", "bicycle")
    ]
    assert (labels != 255).sum() == len(streets.classes) == 19
    scenes = sources["scene_parse150"]
    assert scenes.to_labels(tf.constant([0, 1, 100])).numpy().tolist() == [255, 0, 99]


def test_missing_tfds_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        load("camvid", "train")


@pytest.mark.parametrize("batch_size", [None, 2])
def test_border_weights_go_with_the_label_maps(tmp_path, batch_size):
    labels = np.zeros((12, 16), "uint8")
    labels[2:10, 1:7] = labels[2:10, 9:15] = 1
    labels[0] = 255
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((12, 16, 3)))
        save(tmp_path / "masks" / f"{name}.png", labels)
    dataset = load(tmp_path, "all", batch_size=batch_size, ignore=255)
    weighted = datasets.add_border_weights(dataset, sigma=3, class_weights=(1, 2))
    *_, weights = next(iter(weighted))
    assert weights.shape == ((2, 12, 16) if batch_size else (12, 16))
    expected = border_weights(np.where(labels == 255, 0, labels), sigma=3, class_weights=(1, 2))
    expected[0] = 0
    np.testing.assert_array_equal(weights[0] if batch_size else weights, expected)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)])
    model.compile("sgd", WeightedCrossentropy(ignore_class=255, from_logits=True))
    model.fit(weighted if batch_size else weighted.batch(1), verbose=0)
