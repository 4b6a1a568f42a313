"""Images that are read ahead, and small ones that go into the network together."""

import contextlib
import filecmp
import shutil
import threading
import time

import numpy as np
import pytest
import tifffile
from conftest import randomize
from PIL import Image

from keras_fcn import UNet, predict_folder, predict_image
from keras_fcn.inference import predict
from keras_fcn.inference.batches import MOST, batches_of, in_batches, read_ahead
from keras_fcn.inference.predict import network_of, predict_images
from keras_fcn.inference.sources import find_jobs

SMALL, LARGE = (64, 60, 3), (256, 256, 3)


@pytest.fixture(scope="module")
def model():
    model = UNet(num_classes=3, filters=(4, 8))
    randomize(model, np.random.default_rng(3), scale=0.3)
    return model


@pytest.fixture
def photos(tmp_path, rng):
    """Six small images of one size, a large and a broken one among them, and one on its side."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, SMALL, "uint8")).save(folder / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, LARGE, "uint8")).save(folder / "4a.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "1a.png").write_bytes(whole[: len(whole) // 2])  # its head is like the others'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "0.png").save(folder / "5a.png", exif=exif)
    return folder


@pytest.fixture
def calls(monkeypatch):
    """The shapes of what goes into the network."""
    shapes, compiled = [], predict.compiled

    def watched(*arguments, **options):
        network = compiled(*arguments, **options)
        return lambda images: shapes.append(images.shape) or network(images)

    monkeypatch.setattr(predict, "compiled", watched)
    return shapes


def same(one, other):
    """Assert that two folders hold the same files, byte for byte."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
    assert filecmp.cmpfiles(one, other, names[0], shallow=False)[1:] == ([], [])


@pytest.mark.parametrize(
    ("shapes", "batches"),
    [
        ([], []),
        ([SMALL] * 3, [3]),
        ([SMALL] * (MOST + 2), [MOST, 2]),
        ([(128, 128)] * 9, [4, 4, 1]),
        ([(181, 181)] * 3, [2, 1]),
        ([(182, 182)] * 3, [1, 1, 1]),
        ([SMALL, (60, 64, 3), SMALL, SMALL, None, None, SMALL], [1, 1, 2, 1, 1, 1]),
        ([(1, 1)] * (MOST + 1), [MOST, 1]),
    ],
)
def test_who_goes_with_whom(shapes, batches):
    items = list(enumerate(shapes))
    made = list(in_batches(items, lambda item: item[1]))
    assert [item for batch in made for item in batch] == items
    assert [len(batch) for batch in made] == batches


def test_a_batch_does_not_wait_for_what_can_not_join_it():
    coming = iter([LARGE, SMALL])
    batches = in_batches(coming, lambda shape: shape)
    assert next(batches) == [LARGE]
    assert next(coming) == SMALL


def test_small_images_are_in_the_network_together(model, photos, tmp_path, calls):
    result = predict_folder(model, photos, tmp_path / "out", output_format="labels")
    assert calls == [(5, *SMALL), (1, *LARGE), (1, *SMALL), (1, 60, 64, 3)]
    assert list(result.failed) == [str(photos / "1a.png")]
    assert len(result.done) == 8
    for path in photos.iterdir():
        if path.name not in ("1a.png", "5a.png"):
            expected = predict_image(model, np.asarray(Image.open(path)), output="labels")
            np.testing.assert_array_equal(Image.open(tmp_path / "out" / path.name), expected)


def test_a_run_that_goes_on_predicts_the_same_batches(model, photos, tmp_path, calls):
    options = {"output_format": ["labels", "probabilities"]}
    predict_folder(model, photos, tmp_path / "out", **options)
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    lines = (tmp_path / "out" / "summary.csv").read_text().splitlines(keepends=True)
    (tmp_path / "again" / "summary.csv").write_text("".join(lines[:3] + lines[4:]))
    (tmp_path / "again" / "2_probabilities.tif").unlink()
    calls.clear()
    result = predict_folder(model, photos, tmp_path / "again", **options)
    assert calls == [(5, *SMALL)]
    assert list(result.done) == [str(photos / "2.png")]
    assert len(result.skipped) == 7
    assert sorted(lines) == sorted((tmp_path / "again" / "summary.csv").open())
    (tmp_path / "again" / "summary.csv").write_text("".join(lines))
    same(tmp_path / "out", tmp_path / "again")


def test_of_images_that_fail_together_each_tells_its_own(model, rng, monkeypatch):
    images = [*rng.integers(0, 256, (3, 20, 30, 3), "uint8").astype("float32")]
    images[1][2, 3] = np.nan
    one, bad, other = predict_images(model, images, network_of(model), output="labels")
    np.testing.assert_array_equal(one, predict_image(model, images[0], output="labels"))
    np.testing.assert_array_equal(other, predict_image(model, images[2], output="labels"))
    assert isinstance(bad, ValueError)
    assert "row 2, column 3" in str(bad)
    monkeypatch.setattr(predict, "_predict_together", lambda *_, **__: {}["an error of ours"])
    with pytest.raises(KeyError, match="of ours"):
        predict_images(model, images, network_of(model))


@pytest.mark.parametrize(
    "options", [{}, {"tile_size": 16}, {"test_time_augmentation": True}, {"scales": [1, 0.5]}]
)
@pytest.mark.parametrize(
    "network",
    [
        {"num_classes": 3, "filters": (4, 8), "batch_norm": True},
        {"num_classes": 1, "filters": (4, 8), "classifier_activation": "sigmoid"},
        {"num_classes": 2, "filters": (4, 8), "padding": "valid", "input_shape": (None, None, 1)},
    ],
)
def test_together_as_one_by_one(network, options, rng):
    model = UNet(**network)
    randomize(model, rng, scale=0.2)
    images = rng.integers(0, 256, (3, 23, 41, model.inputs[0].shape[-1]), "uint8")
    together = predict_images(model, images, network_of(model), **options)
    alone = [predict_image(model, image, **options) for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_pages_of_a_stack_go_together(model, tmp_path, rng, calls):
    pages = rng.integers(0, 256, (20, 64, 60, 3), "uint8")
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="rgb")
    predict_folder(model, tmp_path / "stack.tif", tmp_path / "out")
    assert calls == [(16, *SMALL), (4, *SMALL)]
    expected = [predict_image(model, page, output="labels") for page in pages]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "stack.tif"), expected)


def test_heads_that_are_none_say_nothing(photos, tmp_path):
    (photos / "6.png").write_bytes(b"no image")
    np.save(photos / "7.npy", np.zeros(SMALL, "uint8"))
    jobs = find_jobs([photos], tmp_path / "out")
    assert [len(batch) for batch in batches_of(jobs)] == [6, 1, 2, 1, 1]


def test_reading_ahead_keeps_the_order_and_tells_of_errors():
    def read(number):
        if number == 2:
            raise OSError("broken")
        return number * 10

    futures = list(read_ahead(read, range(5), lambda _: 100))
    assert [future.exception() is None for future in futures] == [True, True, False, True, True]
    assert [future.result() for future in futures if not future.exception()] == [0, 10, 30, 40]


@pytest.mark.parametrize(("pixels", "waiting"), [(2**20, 2), (2**15, 2), (2**12, 16), (1, 16)])
def test_no_more_is_read_ahead_than_waits_to_be_predicted(pixels, waiting):
    begun = []
    with contextlib.closing(read_ahead(begun.append, range(100), lambda _: pixels)) as coming:
        next(coming)
        deadline = time.monotonic() + 5
        while len(begun) < waiting + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(begun) == waiting + 1
    assert not any(thread.name == "reading ahead" for thread in threading.enumerate())
