"""Images and predictions at addresses of fsspec, of an S3 server on this machine."""

import importlib
import json
import socket
import sys
import time
from pathlib import Path

import keras
import pytest
import tifffile
from conftest import randomize
from PIL import Image

from keras_fcn import predict_folder
from keras_fcn.commands import main
from keras_fcn.inference import addresses
from keras_fcn.inference.addresses import Store, place_of
from keras_fcn.lock import owner

PHOTOS, OUT = "s3://box/photos ü", "s3://box/out"


@pytest.fixture
def photos(tmp_path, rng):
    """Three images, a stack and a broken file in a folder."""
    for name, size in {"b.png": (20, 30), "a.png": (17, 9), "deep/c.jpg": (30, 20)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), "uint8")).save(path)
    stack = rng.integers(0, 256, (2, 12, 15, 3), "uint8")
    tifffile.imwrite(tmp_path / "photos" / "s.tif", stack, photometric="rgb")
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def forget(s3fs):
    """Let the next address be reached as the environment says."""
    s3fs.S3FileSystem.clear_instance_cache()
    addresses._system.cache_clear()


def put(folder, address):
    store = Store(address)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path, path.relative_to(folder).as_posix())


def contents(place, names):
    """Return {name: bytes} of a place, the names of the images in the tables made those here."""
    place = place_of(place)
    if isinstance(place, Path):
        files = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    else:
        store = Store(place)
        files = {name: store.system.cat_file(f"{store.root}/{name}") for name in store.find()}
    here, there = (name.encode() for name in names)
    return {name: data.replace(there, here) for name, data in files.items()}


def test_what_is_an_address():
    assert place_of("s3://box/a b/") == "s3://box/a b"
    assert place_of("file:///tmp/a%20b") == Path("/tmp/a%20b")
    assert place_of("C:\\photos") == Path("C:\\photos")
    assert place_of("photos/s3:/x") == Path("photos/s3:/x")
    with pytest.raises(ValueError, match=r"one that fsspec knows.*'foo://x'"):
        Store("foo://x")


def test_a_package_that_is_missing(monkeypatch):
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    addresses._system.cache_clear()
    with pytest.raises(ImportError, match=r"Received: 's3://box'.*by `pip install s3fs`"):
        Store("s3://box")


@pytest.mark.filterwarnings("default")
def test_what_is_at_an_address_is_as_in_a_folder(model, photos, tmp_path, bucket, capsys):
    put(photos, PHOTOS)
    model.save(tmp_path / "m.keras")
    here = predict_folder(model, photos, tmp_path / "here", objects=True)
    command = ["predict", PHOTOS, "--weights", str(tmp_path / "m.keras"), "--objects"]
    assert main([*command, "--output", OUT]) == 1
    printed = capsys.readouterr()
    assert f"{PHOTOS}/b.png: label map {OUT}/b.png, overlay {OUT}/b_overlay.png" in printed.out
    assert f"1 of 5 images failed and are in {OUT}/errors.csv, the first '{PHOTOS}" in printed.err
    expected = contents(tmp_path / "here", (str(photos), PHOTOS))
    assert contents(OUT, (str(photos), PHOTOS)) == expected
    # in a folder from an address, and the other way round
    result = predict_folder(model, PHOTOS, tmp_path / "there", objects=True)
    assert len(result.done) == len(here.done) == 4
    assert contents(tmp_path / "there", (str(photos), PHOTOS)) == expected
    predict_folder(model, photos, f"{OUT}/mixed", objects=True)
    assert contents(f"{OUT}/mixed", (str(photos), PHOTOS)) == expected
    # a second run does what is missing
    assert main([*command, "--output", OUT]) == 1
    assert "4 were done before" in capsys.readouterr().out
    assert contents(f"{OUT}/mixed", (str(photos), PHOTOS)) == expected
    assert len(predict_folder(model, photos, f"{OUT}/mixed", objects=True).skipped) == 4
    bucket.rm(f"{OUT}/b_overlay.png")
    result = predict_folder(model, PHOTOS, OUT, objects=True)
    assert list(result.done) == [f"{PHOTOS}/b.png"]
    time.sleep(1)  # the server tells times in seconds
    bucket.pipe("box/photos ü/bad.png", (photos / "a.png").read_bytes())
    bucket.pipe("box/photos ü/a.png", (photos / "b.png").read_bytes())
    result = predict_folder(model, PHOTOS, OUT, objects=True)
    assert list(result.done) == [f"{PHOTOS}/a.png", f"{PHOTOS}/bad.png"]
    assert not bucket.exists(f"{OUT}/errors.csv")


def test_files_patterns_and_the_output_at_an_address(model, photos, bucket):
    put(photos, "s3://box")
    result = predict_folder(model, ["s3://box/b.png", "s3://box/d*/*"], "s3://box/out")
    assert list(result.done) == ["s3://box/b.png", "s3://box/deep/c.jpg"]
    assert bucket.exists("box/out/deep/c.png")
    only = {"output_format": "labels"}
    result = predict_folder(model, "s3://box", "s3://box/more/", **only)
    assert "s3://box/out/deep/c.png" in result.done
    again = predict_folder(model, "s3://box", "s3://box/more/", **only)  # itself is no source
    assert (len(again.skipped), list(again.done)) == (len(result.done), [])
    for nothing in ("s3://box/none", "s3://none/x", "s3://box/*.gif"):
        with pytest.raises(FileNotFoundError, match=nothing.replace("*", r"\*")):
            predict_folder(model, nothing, "s3://box/out")
    with pytest.raises(ValueError, match="should not replace an image"):
        predict_folder(model, "s3://box/b.png", "s3://box")


def test_what_is_refused_at_an_address(model, photos, bucket, rng):
    bucket.pipe(f"{OUT}/a.png", b"mine")
    with pytest.raises(FileExistsError, match=f"'{OUT}/a.png' exists, and keras_fcn did not"):
        predict_folder(model, photos / "a.png", OUT)
    bucket.rm(f"{OUT}/a.png")
    bucket.pipe(f"{OUT}/summary.csv", b"mine")
    with pytest.raises(FileExistsError, match=f"'{OUT}/summary.csv' exists"):
        predict_folder(model, photos / "a.png", OUT)
    assert bucket.find(OUT) == ["box/out/summary.csv"]
    bucket.rm(f"{OUT}/summary.csv")
    predict_folder(model, photos / "a.png", OUT)
    other = keras.models.clone_model(model)
    randomize(other, rng)
    with pytest.raises(FileExistsError, match=f"'{OUT}' holds the predictions of another run"):
        predict_folder(other, photos / "b.png", OUT)
    bucket.pipe(f"{OUT}/.lock", json.dumps(owner() | {"host": "elsewhere"}).encode())
    with pytest.raises(FileExistsError, match=f"at work.*remove '{OUT}/.lock'"):
        predict_folder(model, photos / "b.png", OUT)
    gone = {"pid": 2**22 + 1, "host": socket.gethostname(), "started": "1"}
    bucket.pipe(f"{OUT}/.lock", json.dumps(gone).encode())
    assert predict_folder(model, photos / "b.png", OUT).done
    assert not bucket.exists(f"{OUT}/.lock")


def test_a_lost_network_address(model, photos, monkeypatch, bucket):
    """What was read is done; what can't be written ends the run, and the next one goes on."""
    lost = ConnectionResetError("the network is gone")

    def lose(*_, **__):
        raise lost

    with monkeypatch.context() as patch:
        patch.setattr(addresses._system("s3://box"), "put_file", lose)
        with pytest.raises(ConnectionError, match=f"reachable.*'{OUT}/.*': the network is gone"):
            predict_folder(model, photos, OUT)
    put(photos, PHOTOS)
    with monkeypatch.context() as patch:
        patch.setattr(addresses._system("s3://box"), "get_file", lose)
        result = predict_folder(model, PHOTOS, photos.parent / "out")
        assert "the network is gone" in result.failed[f"{PHOTOS}/a.png"]
    assert len(predict_folder(model, PHOTOS, OUT).done) == 4


@pytest.mark.filterwarnings("default")
def test_an_address_that_nobody_answers(model, photos, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    import s3fs

    forget(s3fs)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"reachable, and open to you. Received: '{OUT}'"):
        predict_folder(model, photos, OUT)
    assert time.monotonic() - start < 20
    forget(s3fs)
