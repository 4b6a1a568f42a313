"""A new user's task, from an empty folder, following only what the messages print."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from keras_fcn.commands import main


def draw_crops(folder, count=30, size=48):
    """Microscope crops with bright cells, and their masks of 0 and 255, in one folder."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    for number in range(count):
        cells = np.zeros((size, size), bool)
        for _ in range(4):
            row, column = rng.uniform(6, size - 6, 2)
            cells |= np.hypot(y - row, x - column) < rng.uniform(3, 6)
        image = np.where(cells, 180, 60) + rng.normal(0, 10, cells.shape)
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / f"crop{number}.png")
        Image.fromarray(cells.astype("uint8") * 255).save(folder / f"crop{number}_mask.png")


def remedy(text, option):
    """The remedy with an option that a message prints, as words to add to the command."""
    text = re.sub(r"[\s│]+", " ", text)
    found = re.search(rf"`({option} [^`]+)`", text)
    assert found, f"no remedy with {option} in: {text}"
    return shlex.split(found[1])


@pytest.fixture
def crops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crops").mkdir()
    draw_crops(tmp_path / "crops")
    return tmp_path / "crops"


def test_crops_with_masks_of_black_and_white(crops, capsys):
    """check-data, train, predict and evaluate; each remedy is taken as it is printed."""
    check = ["check-data", "--images", "crops", "--masks", "crops"]
    assert main(check) == 1
    values = remedy(capsys.readouterr().out, "--values")
    assert main([*check, *values]) == 0
    assert "images with masks: 30, errors: 0" in capsys.readouterr().out

    train = ["train", "--data", "crops", "--output", "run", "--split", "all[:80%]"]
    train += ["--validation", "all[80%:]", "--model", "unet", "--filters", "8", "16"]
    train += ["--epochs", "2", "--crop-size", "32", "--batch-size", "8"]
    assert main(train) == 1
    assert remedy(capsys.readouterr().err, "--values") == values
    assert not main([*train, *values])
    capsys.readouterr()
    assert json.loads((crops.parent / "run" / "training.json").read_text())

    images = [f"crops/crop{number}.png" for number in range(24, 30)]
    weights = ["--weights", "run/model.keras"]
    assert not main(["predict", *images, *weights, "--output", "predicted"])
    predicted = [Image.open(f"predicted/crop{number}.png") for number in range(24, 30)]
    assert all(picture.size == (48, 48) for picture in predicted)
    evaluate = ["evaluate", *weights, "--images", "crops", "--masks", "crops", "--json"]
    assert main(evaluate) == 1
    assert remedy(capsys.readouterr().err, "--values") == values
    assert main([*evaluate, *values]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 30


def test_crops_from_a_camera_of_12_bits(crops, capsys):
    """The dark images are asked about, and the option that is printed mends them."""
    for path in crops.glob("crop?.png"):
        pixels = np.asarray(Image.open(path)).astype("uint16") * 16
        Image.fromarray(pixels).save(path)
    check = ["check-data", "--images", "crops", "--masks", "crops", "--values", "0=0", "255=1"]
    assert main(check) == 0
    white = remedy(capsys.readouterr().out, "--white")
    assert white == ["--white", "4095"]
    assert main([*check, *white]) == 0
    assert "warnings: 0" in capsys.readouterr().out
