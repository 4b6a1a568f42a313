"""The guide "When it goes wrong": what it says that one sees is what one sees."""

import errno
import filecmp
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import keras
import pytest
from forked import Forked
from PIL import Image

import keras_fcn
from keras_fcn.commands import main
from keras_fcn.inference import addresses, pipeline
from keras_fcn.lock import locked
from keras_fcn.training import fit

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "trouble.md"
ROWS = dict(re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", PAGE.read_text(), re.M))
PREDICT = ["predict", "photos", "--weights", "mine.keras"]
TRAIN = ["train", "--data", "data", "--output", "run", "--epochs", "1", "--steps", "1"]
TRAIN += ["--crop-size", "16"]


def check(row, text):
    """Assert that a text is what the page says of a situation, … for anything."""
    said = ROWS[row].removesuffix(" in a log").strip("`")
    pattern = ".*".join(map(re.escape, said.split("…")))
    assert re.search(pattern, text, re.DOTALL), f"{said!r} is not in {text!r}"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, rng):
    """A folder with a model, three photographs, and three images with masks."""
    monkeypatch.chdir(tmp_path)
    keras_fcn.UNet(filters=(4, 8)).save("mine.keras")
    for name in ("photos", "data/images", "data/masks"):
        Path(name).mkdir(parents=True)
    for number in range(3):
        for folder in ("photos", "data/images"):
            pixels = rng.integers(0, 256, (20, 28 + number, 3), "uint8")  # each alone
            Image.fromarray(pixels).save(f"{folder}/{number}.png")
        labels = rng.integers(0, 2, (20, 28 + number), "uint8")
        Image.fromarray(labels).save(f"data/masks/{number}.png")


def spoil(path):
    Path(path).write_bytes(Path(path).read_bytes()[:200])


def same(one, other):
    """Whether two folders hold the same files, byte for byte."""
    names = sorted(path.name for path in Path(one).iterdir())
    assert names == sorted(path.name for path in Path(other).iterdir())
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


@pytest.mark.filterwarnings("default:The scores are those of")
def test_a_file_that_cant_be_read(capsys):
    spoil("photos/1.png")
    assert main(PREDICT) == 1
    check("an image that `predict` can't read", capsys.readouterr().err)
    spoil("data/images/1.png")
    assert main(["evaluate", "--weights", "mine.keras", "--data", "data", "--split", "all"]) == 1
    row = "an image or a mask that `evaluate` can't read, or that do not fit"
    check(row, capsys.readouterr().err)
    assert main(TRAIN) == 1
    check("one that `train` can't read", capsys.readouterr().err)
    assert not Path("run").exists()


def test_a_full_disk(capsys, monkeypatch):
    save = Image.Image.save

    def fill(picture, path, *arguments, **options):
        if "2_overlay" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(picture, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fill)
        assert main(PREDICT) == 1
    check("the disk is full", capsys.readouterr().err)
    assert not list(Path("predictions").glob("*2_overlay*"))
    assert main(PREDICT) == 0
    assert main([*PREDICT, "--output", "undisturbed"]) == 0
    assert same("predictions", "undisturbed")


# The command in a process of its own, which lasts.
SLOW = """
import sys, time
from keras_fcn.__main__ import main
from keras_fcn.inference import addresses, pipeline
predict = pipeline.predict_images
pipeline.predict_images = lambda *a, **k: time.sleep(0.5) or predict(*a, **k)
sys.argv = ["keras-fcn", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "row"),
    [
        (signal.SIGKILL, "`predict` is killed (`kill -9`, a power cut)"),
        (signal.SIGTERM, "any of them gets SIGTERM, as from a scheduler"),
        (signal.SIGHUP, "the terminal of any of them is closed (SIGHUP)"),
        (signal.SIGINT, "any of them gets Ctrl-C"),
    ],
)
def test_killed_and_stopped(number, row):
    process = Forked(["-c", SLOW, *PREDICT])
    while not Path("predictions/0.png").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(number)
    lines = process.communicate()[1].splitlines()
    errors = "\n".join(line for line in lines if line.startswith("keras-fcn"))  # not TensorFlow's
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    check(row, errors or "nothing")
    left = {path.name for path in Path("predictions").iterdir()}
    assert (".lock" in left) == (number == signal.SIGKILL)
    assert "2.png" not in left
    assert main(PREDICT) == 0
    for folder in Path("predictions").glob(".writing-*"):
        assert number == signal.SIGKILL
        shutil.rmtree(folder)
    assert main([*PREDICT, "--output", "undisturbed"]) == 0
    assert same("predictions", "undisturbed")


def test_two_at_a_time_and_other_settings(capsys):
    Path("predictions").mkdir()
    with locked("predictions"):
        assert main(PREDICT) == 1
    check("a second run into the same folder", capsys.readouterr().err)
    assert main(PREDICT) == 0
    keras.utils.set_random_seed(1)
    keras_fcn.UNet(filters=(4, 8)).save("mine.keras")
    assert main(PREDICT) == 1
    check("`predict` with other weights into the same folder", capsys.readouterr().err)
    score = ["evaluate", "--weights", "mine.keras", "--data", "data", "--split", "all"]
    assert main([*score, "--output", "evaluation"]) == 0
    keras_fcn.UNet(filters=(8, 8)).save("mine.keras")
    assert main([*score, "--output", "evaluation"]) == 1
    row = "`evaluate` with other weights into the same `--output`"
    check(row, capsys.readouterr().err)
    export = ["export", "--weights", "mine.keras", "--format", "litert"]
    Path("mine.tflite").write_bytes(b"earlier")
    assert main(export) == 1
    check("`export` to a name that exists", capsys.readouterr().err)
    assert Path("mine.tflite").read_bytes() == b"earlier"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_other_settings_of_a_training(capsys):
    assert main([*TRAIN, "--filters", "4", "8"]) == 0
    capsys.readouterr()
    assert main([*TRAIN, "--filters", "8", "8"]) == 1
    check("`train` into the folder of a finished run", capsys.readouterr().err)
    Path("run/model.keras").unlink()  # as it is before the last epoch
    assert main([*TRAIN, "--filters", "8", "8"]) == 1
    row = "`train` with other settings into the folder of an interrupted run"
    check(row, capsys.readouterr().err)


def test_a_lost_share(capsys, monkeypatch):
    predict = pipeline.predict_images

    def lose(*arguments, **options):
        if Path("photos").exists():
            Path("photos").rename("away")
        return predict(*arguments, **options)

    for number in range(3, 40):  # some are read ahead
        shutil.copy("photos/0.png", f"photos/{number}.png")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "predict_images", lose)
        assert main(PREDICT) == 1
    check("the share with the images is lost during `predict`", capsys.readouterr().err)
    assert len(list(Path("predictions").glob("*_overlay.png"))) >= 1
    Path("away").rename("photos")
    assert main(PREDICT) == 0
    assert len(list(Path("predictions").glob("*_overlay.png"))) == 40


def test_a_lost_share_of_the_predictions(capsys, monkeypatch):
    predict = pipeline.predict_images

    def lose(*arguments, **options):
        if Path("predictions").exists():
            Path("predictions").rename("away")
        return predict(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "predict_images", lose)
        assert main(PREDICT) == 1
    check("the share of the predictions is lost", capsys.readouterr().err)
    assert not Path("predictions").exists()  # nothing is written to what is below the share
    Path("away").rename("predictions")
    Path("predictions/.lock").unlink()  # of this process, which is still there
    assert main(PREDICT) == 0


def lose(*_, **__):
    raise ConnectionResetError("the network is gone")


def test_a_lost_address(capsys, bucket, monkeypatch):
    store = addresses.Store("s3://box")
    for path in Path("photos").iterdir():
        store.put(path, f"photos/{path.name}")
    command = ["predict", "s3://box/photos", "--weights", "mine.keras"]
    with monkeypatch.context() as patch:
        patch.setattr(store.system, "get_file", lose)
        assert main(command) == 1
    check("an address of images is lost during `predict`", capsys.readouterr().err)
    assert main(command) == 0
    command = [*PREDICT, "--output", "s3://box/out"]
    with monkeypatch.context() as patch:
        patch.setattr(store.system, "put_file", lose)
        assert main(command) == 1
    check("the address of the predictions is lost", capsys.readouterr().err)
    assert main(command) == 0
    assert len(store.find()) == 3 + 8


def test_no_cluster(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert main([*PREDICT, "--ray", address]) == 1
    check("no cluster answers at `--ray HOST:PORT`", capsys.readouterr().err)


def test_no_network(capsys, monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure")  # as Keras does

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    options = ["--encoder", "vgg16", "--weights", "imagenet", "--batch-size", "1"]
    assert main([*TRAIN, *options]) == 1
    check("`--weights imagenet` without a network", capsys.readouterr().err)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.filterwarnings("default:The log should have a row")
def test_a_damaged_log(capsys, monkeypatch):
    command = [*TRAIN[:5], "--epochs", "3", *TRAIN[7:], "--filters", "4", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "finish", interrupt)
        assert main(command) == 130
    whole = Path("run/log.csv").read_bytes()
    Path("run/log.csv").write_bytes(whole[: whole.index(b"\n") + 9])
    capsys.readouterr()
    assert main(command) == 0
    row = "a damaged or missing `log.csv` of an interrupted run of `train`"
    check(row, capsys.readouterr().err)
    assert len(Path("run/log.csv").read_bytes().splitlines()) == 4
    assert Path("run/log.damaged1.csv").read_bytes() == whole[: whole.index(b"\n") + 9]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_address_of_another_machine(capsys):
    assert main(["demo", "--host", "192.0.2.1"]) == 1
    check("`demo --host` with an address of another machine", capsys.readouterr().err)


def test_no_line_of_the_page_is_left_out():
    elsewhere = {  # in the tests of training, tuning, exports and clusters
        "what happens", "---", "a process of `predict --ray` is killed",
        "`train` or `tune` is killed", "`export` is killed",
    }  # fmt: skip
    source = Path(__file__).read_text()
    assert [row for row in ROWS if f'"{row}"' not in source] == []
    assert elsewhere < set(ROWS)
