"""Predictions larger than memory: the same numbers, in bounded memory, and after a kill."""

import json
import os
import subprocess
import sys
import time
import types

import h5py
import keras
import numpy as np
import pytest
import tifffile
from conftest import leave_half, randomize
from forked import Forked
from PIL import Image

from keras_fcn import UNet, predict_image, predict_into
from keras_fcn.inference import into, memory
from keras_fcn.inference.images import Sliced
from keras_fcn.inference.tiles import View
from keras_fcn.lock import locked


@pytest.fixture(scope="module")
def model():
    model = UNet(num_classes=3, filters=(3, 4))
    randomize(model, np.random.default_rng(3), scale=0.3)
    return model


@pytest.fixture
def image(tmp_path, rng):
    """A memory map of 70 x 90 pixels."""
    image = np.memmap(tmp_path / "image", "uint8", "w+", shape=(70, 90, 3))
    image[:] = rng.integers(0, 256, image.shape)
    return image


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_after(monkeypatch, tiles):
    """Let a run be interrupted when so many tiles are made."""
    predict, made = into.Pieces.predict, []

    def predict_or_stop(self, box):
        if len(made) == tiles:
            raise KeyboardInterrupt
        made.append(box)
        return predict(self, box)

    monkeypatch.setattr(into.Pieces, "predict", predict_or_stop)
    return made


@pytest.mark.parametrize("name", ["labels.npy", "labels.tif"])
@pytest.mark.parametrize("augmentation", [False, "dihedral"])
def test_labels(name, augmentation, model, image, tmp_path):
    options = {"test_time_augmentation": augmentation}
    leave_half(tmp_path, name)  # of a process that was killed
    path = predict_into(model, image, tmp_path / name, tile_size=32, **options)
    labels = np.load(path) if path.suffix == ".npy" else tifffile.imread(path)
    assert labels.dtype == "uint8"
    expected = predict_image(model, image, tile_size=32, output="labels", **options)
    np.testing.assert_array_equal(labels, expected)
    assert names(tmp_path) == ["image", name]


@pytest.mark.parametrize("tile_size", [None, "auto", (40, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities(tile_size, channels, image, tmp_path):
    activation = "softmax" if channels > 1 else "sigmoid"
    model = UNet(num_classes=channels, filters=(3, 4), classifier_activation=activation)
    expected = predict_image(model, image)
    for name in ("scores.npy", "scores.tif"):
        options = {"output": "probabilities", "tile_size": tile_size}
        predict_into(model, image, tmp_path / name, **options)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-6)
    written = tifffile.imread(tmp_path / "scores.tif").reshape(expected.shape)
    np.testing.assert_array_equal(written, np.load(tmp_path / "scores.npy"))


def test_a_tiled_file_of_several_tiles_with_its_colours(model, tmp_path, rng):
    image = rng.integers(0, 256, (300, 530, 3), "uint8")
    predict_into(model, image, tmp_path / "a.tif")
    expected = predict_image(model, image, output="labels")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.tif")), expected)
    assert Image.open(tmp_path / "a.tif").mode == "P"


def test_interrupted_it_goes_on_to_the_same_bytes(model, image, tmp_path, monkeypatch):
    whole = predict_into(model, image, tmp_path / "whole.npy", tile_size=32).read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 4)
        predict_into(model, image, tmp_path / "a.npy", tile_size=32)
    assert not (tmp_path / "a.npy").exists()
    with monkeypatch.context() as patch:
        made = stop_after(patch, 100)
        path = predict_into(model, image, tmp_path / "a.npy", tile_size=32)
        assert len(made) == 9 - 4
    assert path.read_bytes() == whole
    assert not (tmp_path / "a.npy.part").exists()


@pytest.mark.parametrize("tile_size", [None, 32])
@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.zarr"])
@pytest.mark.parametrize("moment", ["written", "tiles gone", "delivered"])
def test_killed_at_the_end_it_is_tidied_up(
    moment, name, tile_size, model, image, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    place = {"written": "unlink", "tiles gone": "replace", "delivered": None}[moment]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(into, "shutil", types.SimpleNamespace(rmtree=stop))
        if place == "unlink" and name != "a.npy":
            real = into.Path.unlink
            patch.setattr(
                into.Path, "unlink", lambda path, **how: stop() if path.name == into.TILES
                else real(path, **how),
            )  # fmt: skip
        elif place == "replace":
            real = into.Path.replace
            patch.setattr(
                into.Path, "replace", lambda path, to: stop() if to == tmp_path / name
                else real(path, to),
            )  # fmt: skip
        predict_into(model, image, tmp_path / name, tile_size=tile_size)
    assert (tmp_path / f"{name}.part").exists()
    monkeypatch.setattr(into.Pieces, "predict", stop)  # no tile is made again
    monkeypatch.setattr(into.Pieces, "whole", stop)
    with pytest.raises(FileExistsError, match="with other image"):
        predict_into(model, np.array(image)[::-1], tmp_path / name, tile_size=tile_size)
    path = predict_into(model, image, tmp_path / name, tile_size=tile_size)
    if name == "a.zarr":
        import zarr

        labels = zarr.open(path, mode="r")[:]
    else:
        labels = np.load(path) if name == "a.npy" else tifffile.imread(path)
    monkeypatch.undo()
    np.testing.assert_array_equal(labels, predict_image(model, image, output="labels"))
    assert names(tmp_path) == [name, "image"]


def test_what_was_delivered_and_taken_away_is_made_again(model, image, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(into, "shutil", types.SimpleNamespace(rmtree=lambda _: 1 / 0))
        predict_into(model, image, tmp_path / "a.npy", tile_size=32)
    (tmp_path / "a.npy").unlink()
    path = predict_into(model, image, tmp_path / "a.npy", tile_size=32)
    expected = predict_image(model, image, tile_size=32, output="labels")
    np.testing.assert_array_equal(np.load(path), expected)
    assert names(tmp_path) == ["a.npy", "image"]


def test_automatic_tiles_go_on_as_they_began(model, image, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 5e5)
    pair = into.Pieces(model, None, image, "auto", [(0, False)]).tile_size
    assert pair is not None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 1)
        predict_into(model, image, tmp_path / "a.npy")
    monkeypatch.setattr(memory, "free_memory", lambda: 1e9)
    predict_into(model, image, tmp_path / "a.npy")
    np.testing.assert_array_equal(
        np.load(tmp_path / "a.npy"), predict_image(model, image, output="labels")
    )


def test_other_tiles_are_not_gone_on_with(model, image, tmp_path, monkeypatch, rng):
    path = tmp_path / "a.npy"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 4)
        predict_into(model, image, path, tile_size=32)
    other = UNet(num_classes=3, filters=(3, 4))
    changed = np.array(image)
    changed[-1, -1] ^= 1
    for call, name in [
        ({"model": other}, "weights"),
        ({"image": changed}, "image"),
        ({"tile_size": 16}, "tile_size"),
        ({"output": "probabilities"}, "output"),
        ({"test_time_augmentation": True}, "test_time_augmentation"),
    ]:
        call = {"model": model, "image": image, "path": path, "tile_size": 32} | call
        with pytest.raises(FileExistsError, match=f"of another call, with other {name}"):
            predict_into(**call)
    with locked(tmp_path / "a.npy.part"), pytest.raises(FileExistsError, match="One run at a time"):
        predict_into(model, image, path, tile_size=32)
    assert predict_into(model, image, path, tile_size=32) == path


def test_files_of_others_are_left_alone(model, image, tmp_path):
    (tmp_path / "a.npy").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.npy' exists\. Remove it"):
        predict_into(model, image, tmp_path / "a.npy")
    (tmp_path / "b.npy.part").mkdir()
    (tmp_path / "b.npy.part" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="did not write what is in it"):
        predict_into(model, image, tmp_path / "b.npy")
    assert (tmp_path / "b.npy.part" / "notes.txt").read_text() == "mine"


def test_a_call_that_makes_nothing_leaves_nothing(model, image, tmp_path):
    before = names(tmp_path)
    with pytest.raises(ValueError, match=r"should end in one of \.npy, \.tif"):
        predict_into(model, image, tmp_path / "a.png")
    broken = UNet(num_classes=3, filters=(3, 4))
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    with pytest.raises(ValueError, match="should give finite scores"):
        predict_into(broken, image, tmp_path / "a.npy", tile_size=32)
    with pytest.raises(ValueError, match="`tile_size` should be"):
        predict_into(model, image, tmp_path / "a.npy", tile_size=0)
    assert names(tmp_path) == before


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_has_slices_is_read_a_part_at_a_time(padding, channels, tmp_path, rng, monkeypatch):
    model = UNet(input_shape=(None, None, channels), num_classes=2, filters=(3, 4), padding=padding)
    shape = (70, 90, channels) if channels > 1 else (70, 90)
    pixels = rng.integers(0, 256, shape, "uint8")
    largest = []
    read = Sliced.__getitem__

    def measure(self, part):
        pixels = read(self, part)
        largest.append(pixels.size)
        return pixels

    monkeypatch.setattr(Sliced, "__getitem__", measure)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        image = file.create_dataset("image", data=pixels, chunks=True)
        expected = predict_image(model, pixels)
        tiled = predict_image(model, image, tile_size=20)
        assert max(largest) < pixels.size / 2
        np.testing.assert_allclose(tiled, expected, atol=1e-6)
        for options in ({}, {"test_time_augmentation": True}, {"scales": (0.5, 1)}):
            np.testing.assert_allclose(
                predict_image(model, image, **options), predict_image(model, pixels, **options)
            )


def test_a_zarr_array(model, image, tmp_path, monkeypatch):
    import zarr

    monkeypatch.setattr(into, "CHUNK", 32)
    path = predict_into(model, image, tmp_path / "a.zarr", tile_size=40)
    written = zarr.open(path, mode="r")
    assert written.chunks == (32, 32)
    np.testing.assert_array_equal(written[:], predict_image(model, image, output="labels"))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match="pip install zarr"):
        predict_into(model, image, tmp_path / "b.zarr", tile_size=40)
    assert names(tmp_path) == ["a.zarr", "image"]


def test_a_tiled_tiff_is_read_a_tile_at_a_time(model, tmp_path, rng):
    import zarr

    pixels = rng.integers(0, 256, (200, 300, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    with tifffile.imread(tmp_path / "a.tif", aszarr=True) as store:
        image = zarr.open(store, mode="r")
        path = predict_into(model, image, tmp_path / "labels.tif", tile_size=70)
    expected = predict_image(model, pixels, output="labels")
    np.testing.assert_array_equal(tifffile.imread(path), expected)


def test_automatic_tiles(model, image, monkeypatch):
    """The whole image where it fits; else the largest tiles that do, with what they see."""
    assert memory.choose_tile_size(model, View(model, image)) is None
    per_pixel = memory.bytes_per_pixel(model)
    # by hand: float32 of 3 bands preprocessed twice; 3, 3 | 4, 4 | 3, 6, 3, 3 and 3 classes
    assert 4 * 20 < per_pixel < 4 * 60
    view = View(model, np.empty((3000, 2000, 3), "bool"))
    field = memory.receptive_field_of(model)
    margin = field.before[0] + field.after[0] + 2 * field.alignment[0]
    for side in (64, 512, 1024):
        free = (side + margin) ** 2 * per_pixel
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free + 1)
        assert memory.choose_tile_size(model, view) == (side, side)
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free - 1)
        assert memory.choose_tile_size(model, view) == (max(64, side - 64),) * 2
    monkeypatch.setattr(memory, "free_memory", lambda: 5e5)
    np.testing.assert_allclose(
        predict_image(model, image, tile_size="auto"), predict_image(model, image), atol=1e-6
    )


def test_layers_of_one_name_in_two_models_both_need_memory():
    """Ten times the channels in the first of them, or in the second: alike but for the order."""

    def nested(name, filters):
        image = keras.Input((None, None, 4))
        maps = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(image)
        return keras.Model(image, keras.layers.Conv2D(4, 1, name="last")(maps), name=name)

    sizes = []
    for widths in ((4, 40), (40, 4), (4, 4)):
        image = keras.Input((None, None, 4))
        maps = nested("second", widths[1])(nested("first", widths[0])(image))
        sizes.append(memory.bytes_per_pixel(keras.Model(image, maps)))
    assert sizes == [4 * (4 + 4 + 4 + 40 + 4)] * 2 + [4 * (4 + 4 + 4 + 4 + 4)]


def test_free_memory(tmp_path, monkeypatch):
    free = memory.free_memory()
    assert 2**20 < free < 2**45
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.free_memory() > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.free_memory() == 4000


def test_changes_of_a_private_memory_map_are_kept(image, tmp_path):
    image.flush()
    private = np.memmap(tmp_path / "image", "uint8", "c", shape=image.shape)
    private[0, 0, 0] = image[0, 0, 0] ^ 255
    memory.release(private)
    memory.release(image)
    assert private[0, 0, 0] == image[0, 0, 0] ^ 255


MEMORY = """
import numpy as np
import keras_fcn

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

model = keras_fcn.UNet(num_classes=16, filters=(2, 2))
image = np.lib.format.open_memmap("image.npy", "r")
keras_fcn.predict_into(model, image[:520, :520], "warm.npy", tile_size=512)
before = peak()
keras_fcn.predict_into(model, image, "whole.npy", tile_size=512)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_bounded(tmp_path, rng, pytestconfig):
    """Of an image of 75 MB, the probabilities of which are 1.6 GB."""
    image = np.lib.format.open_memmap(tmp_path / "image.npy", "w+", "uint8", (6144, 4096, 3))
    image[:] = rng.integers(0, 256, (6144, 1, 3), "uint8")
    image.flush()
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    del environment["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"]  # of the tests: it takes 100 MB more here
    # what glibc keeps of freed memory grows with threads, so with cores: 28 MB of two, 101 of 32
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # which a process heeds from its beginning
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    result = subprocess.run([sys.executable, "-c", MEMORY], check=True, **run)
    assert int(result.stdout.split()[-1]) < 60e6  # the image and the result are 100 MB


PREDICT = """
import sys
import keras
import numpy as np
import keras_fcn

keras.utils.set_random_seed(0)
model = keras_fcn.UNet(num_classes=16, filters=(2, 2))
keras_fcn.predict_into(model, np.load("image.npy"), sys.argv[1], tile_size=128)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", rng.integers(0, 256, (3072, 2048, 3), "uint8"))
    killed = Forked(["-c", PREDICT, "a.npy"])
    done = tmp_path / "a.npy.part" / "done"
    while not done.exists() or done.stat().st_size < 20:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert 20 <= done.stat().st_size < 384
    assert json.loads((tmp_path / "a.npy.part" / "run.json").read_text())["tile_size"] == [128, 128]
    for name in ("a.npy", "whole.npy"):
        monkeypatch.setattr(sys, "argv", ["", name])
        exec(PREDICT, {})
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
