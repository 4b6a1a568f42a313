"""Numbers are numbers, whoever made them, and truth values, texts and fractions are none."""

import numpy as np
import pytest
from PIL import Image

import keras_fcn
from keras_fcn import datasets
from keras_fcn.arguments import check_flag
from keras_fcn.classes import Classes
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.masks import read_mask
from keras_fcn.metrics import SegmentationMetrics, boundary_f1
from keras_fcn.training import Recipe
from keras_fcn.tuning.settings import Search
from keras_fcn.visualize import error_map, overlay, write_label_map

LABELS = np.eye(8, 12, dtype="uint8")
KERNEL = np.zeros((2 * 2 * 3, 4), "float32")

INTEGERS = {
    "num_classes": lambda n: keras_fcn.UNet(num_classes=n, filters=(2, 4)),
    "filters": lambda n: keras_fcn.UNet(num_classes=2, filters=(n, 4)),
    "kernel_size": lambda n: keras_fcn.dense_to_conv(KERNEL, (n, 2)),
    "metric": SegmentationMetrics,
    "ignore": lambda n: Classes(("a", "b"), ignore=n).to_config(),
    "boundary": lambda n: boundary_f1(LABELS, LABELS, n),
    "batch_size": lambda n: datasets.load(".", "all", batch_size=n),
    "crop_size": lambda n: datasets.load(".", "all", crop_size=n),
    "ignore of load": lambda n: datasets.load(".", "all", ignore=n, crop_size=8),
    "seed of load": lambda n: datasets.load(".", "all", seed=n, shuffle=True, crop_size=8),
    "split_seed": lambda n: datasets.load(".", "all", split_seed=n),
    "max_pixels": lambda n: read_image("pixel.png", max_pixels=n),
    "channels": lambda n: read_image("two.npy", channels=n),
    "channels of Pairs": lambda n: datasets.Pairs(".", channels=n),
    "labels of values": lambda n: read_mask("masks/a.png", values={0: 0, 1: n}),
    "labels of colors": lambda n: read_mask("rgb.png", colors={(0, 0, 0): 0, (9, 0, 0): n}),
    "check_data": lambda n: datasets.check_data(".", num_classes=n, ignore=n),
    **{
        f"recipe, {name}": lambda n, name=name: Recipe(".", **{name: n}).parameters
        for name in ("num_classes", "epochs", "steps", "crop_size", "seed", "early_stopping")
    },
    "recipe, filters": lambda n: Recipe(".", filters=(n, 4)).parameters,
    "recipe, fc_filters": lambda n: Recipe(".", model="fcn8s", fc_filters=n).parameters,
    "recipe, values": lambda n: Recipe(".", values={0: 0, n: 1}).parameters,
    "trials": lambda n: Search(".", trials=n, max_parameters=n).parameters,
}
NUMBERS = {
    "learning_rate": lambda x: Recipe(".", learning_rate=x).parameters,
    "minutes": lambda x: Recipe(".", minutes=x).parameters,
    "white": lambda x: read_image("images/a.png", white=x),
    "elastic": lambda x: datasets.Augmentation(elastic=x),
    "tolerance": lambda x: boundary_f1(LABELS, LABELS, 2, tolerance=x),
    "scale": lambda x: keras_fcn.predict_image(MODEL, np.zeros((8, 12, 3), "uint8"), scales=(x,)),
}
SHARES = {
    "dropout": lambda x: keras_fcn.UNet(filters=(2, 4), dropout=x),
    "recipe, dropout": lambda x: Recipe(".", dropout=x).parameters,
    "momentum": lambda x: Recipe(".", optimizer="sgd", momentum=x).parameters,
}
MODEL = keras_fcn.UNet(filters=(2, 4))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.arange(8 * 12 * 3, dtype="uint8").reshape(8, 12, 3)).save("images/a.png")
    Image.fromarray(LABELS).save("masks/a.png")
    Image.fromarray(LABELS[..., None] * np.uint8([9, 0, 0])).save("rgb.png")
    Image.new("L", (1, 1)).save("pixel.png")
    np.save("two.npy", np.zeros((8, 12, 2), "uint8"))


@pytest.mark.parametrize("call", INTEGERS.values(), ids=list(INTEGERS))
def test_integers(call, place):
    for number in (2, np.int64(2), np.uint8(2), np.int32(2)):
        call(number)
    for number in (True, np.True_, "2", 2.5, float("nan")):
        with pytest.raises(ValueError, match=r"should be|integers"):
            call(number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 10**25}, "`steps` should be an integer below 2"),
        ({"batch_size": 10**25}, "`batch_size` should be an integer below 2"),
        ({"crop_size": 2**63}, "`crop_size` should be an integer below 2"),
        ({"filters": (2, 2**63)}, "`filters` should be an integer below 2"),
        ({"minutes": 1e308}, "`minutes` should be a number above 0, at most 527040"),
    ],
)
def test_numbers_that_no_machine_counts_to(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(".", **arguments)


def test_displacements_that_no_crop_is_read_with():
    with pytest.raises(ValueError, match="`elastic` should be a number from 0 to 1000"):
        datasets.Augmentation(elastic=1e308)


@pytest.mark.parametrize("call", NUMBERS.values(), ids=list(NUMBERS))
def test_numbers(call, place):
    for number in (2, np.float32(2), np.float64(2.5), np.int64(2)):
        call(number)
    for number in (True, np.True_, "2", float("nan"), -1):
        with pytest.raises(ValueError, match="should be"):
            call(number)


@pytest.mark.parametrize("call", SHARES.values(), ids=list(SHARES))
def test_shares(call):
    for number in (0, 0.5, np.float32(0.5)):
        call(number)
    for number in (True, "0.5", float("nan"), 1, -0.5):
        with pytest.raises(ValueError, match="from 0 to below 1"):
            call(number)


def test_flags():
    assert check_flag("batch_norm", np.True_) is True
    assert Recipe(".", batch_norm=np.False_).parameters["batch_norm"] is False
    for value in ("True", 1, 1.0, [True]):
        with pytest.raises(ValueError, match="`batch_norm` should be True or False"):
            Recipe(".", batch_norm=value)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_whole_floats_are_labels_and_fractions_are_none(dtype, tmp_path):
    image, palette = np.zeros((8, 12, 3), "uint8"), np.eye(3, dtype="uint8")
    for draw in (
        lambda labels: overlay(image, labels, palette, "abc"),
        lambda labels: error_map(labels, LABELS),
        lambda labels: write_label_map(tmp_path / "labels.png", labels, palette),
    ):
        draw(LABELS.astype(dtype))
        for wrong in (LABELS.astype(dtype) / 2, LABELS.astype("complex64"), LABELS.astype(str)):
            with pytest.raises(ValueError, match="Labels should be whole numbers"):
                draw(wrong)


def test_texts_are_no_labels():
    for labels in (LABELS.astype(str), LABELS.astype("complex64"), LABELS.astype(object)):
        with pytest.raises(ValueError, match="Labels should be integers"):
            boundary_f1(labels, LABELS, 2)
