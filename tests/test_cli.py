import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_fcn import UNet
from keras_fcn.cli import main


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(load_sample_image("china.jpg")[100:300:2, 100:400:2]).save(path)
    return path


def test_predict_with_shipped_weights(photo, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["predict", str(photo), "--weights", "unet_camvid", "--output", str(output)]) == 0
    assert str(output / "photo_overlay.png") in capsys.readouterr().out
    labels = np.asarray(Image.open(output / "photo.png"))
    assert labels.shape == (100, 150)
    assert labels.max() < 11
    assert Image.open(output / "photo_overlay.png").width == 150


def test_predict_with_a_saved_gray_model(photo, tmp_path):
    UNet(input_shape=(None, None, 1), filters=(4, 8)).save(tmp_path / "gray.keras")
    weights = str(tmp_path / "gray.keras")
    assert main(["predict", str(photo), "--weights", weights, "--output", str(tmp_path / "o")]) == 0
    assert Image.open(tmp_path / "o" / "photo.png").size == (150, 100)


def test_outputs_never_replace_the_image(photo, tmp_path, capsys):
    before = photo.read_bytes()
    arguments = ["predict", str(photo), "--weights", "unet_camvid", "--output", str(tmp_path)]
    assert main(arguments) == 1
    assert "did not write it" in capsys.readouterr().err
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("images", "weights", "message"),
    [
        (["missing.png"], "unet_camvid", "missing.png"),
        (["setup.cfg"], "unet_camvid", "cannot identify image"),
        (["a/x.png", "b/x.jpg"], "unet_camvid", "names should differ"),
        (["x.png"], "unet_canvid", "Did you mean 'unet_camvid'"),
        (["x.png"], "missing.keras", "no model file"),
        (["x.png"], "setup.cfg", "whole model"),
    ],
)
def test_errors_are_explained(images, weights, message, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert main(["predict", *images, "--weights", weights, "--output", "predictions"]) == 1
    assert message in capsys.readouterr().err


def test_models_lists_what_ships(capsys):
    assert main(["models"]) == 0
    assert "unet_camvid" in capsys.readouterr().out
