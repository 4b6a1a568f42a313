"""A new user's task, from an empty folder, following only what the messages print."""

import json
import re
import shlex

import numpy as np
import pytest
from conftest import ship_small
from PIL import Image
from skimage.measure import label

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


@pytest.mark.usefixtures("eagerly")
def test_one_mask_for_each_object(tmp_path, monkeypatch, capsys):
    """As the 2018 Data Science Bowl has them: a folder for each image, a mask for each nucleus."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    draw_crops(tmp_path / "flat", count=4)
    for number in range(4):
        image = tmp_path / "cells" / f"cell{number}" / "images" / f"cell{number}.png"
        image.parent.mkdir(parents=True)
        (tmp_path / "flat" / f"crop{number}.png").rename(image)
        cells = label(np.asarray(Image.open(tmp_path / "flat" / f"crop{number}_mask.png")))
        masks = image.parents[1] / "masks"
        masks.mkdir()
        for cell in range(1, cells.max() + 1):
            mask = Image.fromarray((cells == cell).astype("uint8") * 255)
            mask.save(masks / f"{cell}.png")
    train = ["train", "--data", "cells", "--output", "run", "--split", "all[:3]", "--epochs", "1"]
    train += ["--validation", "all[3:]", "--model", "unet", "--filters", "8", "16"]
    train += ["--crop-size", "32", "--batch-size", "3"]
    assert main(train) == 1
    instances = remedy(capsys.readouterr().err, "--instances")
    assert instances == ["--instances", "border"]
    assert main([*train, *instances]) == 0


@pytest.mark.usefixtures("eagerly")
@pytest.mark.filterwarnings("ignore:These layers of 'unet_camvid' start fresh")
def test_classes_with_names_and_colours_of_ones_own(
    tmp_path, monkeypatch, tmp_path_factory, capsys
):
    """Four classes from a street network: what is predicted bears their names and colours."""
    ship_small(monkeypatch, tmp_path_factory.mktemp("ships"), "unet_camvid")
    monkeypatch.chdir(tmp_path)
    names = ("water", "sand", "grass", "rock")
    colors = ((0, 0, 255), (250, 220, 130), (0, 160, 0), (120, 120, 120))
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "coast" / folder).mkdir(parents=True)
    for number in range(4):
        labels = np.repeat(rng.permutation(4), 16)[:, None].repeat(64, 1)
        pixels = np.array(colors, "uint8")[labels]
        noise = rng.integers(0, 40, pixels.shape)
        image = Image.fromarray((pixels * 0.8 + noise).clip(0, 255).astype("uint8"))
        image.save(tmp_path / "coast" / "images" / f"{number}.png")
        Image.fromarray(pixels).save(tmp_path / "coast" / "masks" / f"{number}.png")
    rows = [(n, name, *color) for n, (name, color) in enumerate(zip(names, colors, strict=True))]
    lines = ["label,name,red,green,blue", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "coast" / "classes.csv").write_text("\n".join(lines))

    assert main(["check-data", "--data", "coast"]) == 1
    table = remedy(capsys.readouterr().out, "--colors")
    printed = {color.partition("=")[0] for color in table[1:]}
    assert printed == {f"{r},{g},{b}" for _, _, r, g, b in rows}
    table = ["--colors", *(f"{r},{g},{b}={n}" for n, _, r, g, b in rows)]  # in one's own order
    assert main(["check-data", "--data", "coast", *table]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in names)

    train = ["train", "--data", "coast", "--output", "run", "--split", "all[:3]", "--epochs", "1"]
    train += ["--validation", "all[3:]", "--weights", "unet_camvid", "--crop-size", "32"]
    assert main([*train, "--steps", "2", "--batch-size", "1", *table]) == 0
    assert main(["predict", "coast/images/0.png", "--weights", "run/model.keras"]) == 0
    predicted = Image.open("predictions/0.png")
    palette = np.reshape(predicted.getpalette("RGB"), (-1, 3))[:4]
    assert palette.tolist() == [list(color) for color in colors]
    evaluate = ["evaluate", "--weights", "run/model.keras", "--data", "coast", "--split", "all[3:]"]
    assert main([*evaluate, *table, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tuple(scores["per_class_iou"]) == names
