import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_fcn import pretrained
from keras_fcn.commands import main

# so that the README's commands take seconds; of options given twice the last counts
SMALL = {
    "train": "--filters 4 8 --epochs 1 --steps 2 --crop-size 32",
    "tune": "--trials 1 --epochs 1 --steps 1 --crop-size 32",
    "train --from-tuning": "--epochs 1 --steps 2",
}


def readme_blocks(pytestconfig, language):
    text = (pytestconfig.rootpath / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.slow
def test_readme_commands_run(pytestconfig, tmp_path, monkeypatch, rng):
    """The command lines of the README, but the quick start's, which CI runs."""
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        labels = np.kron(rng.integers(0, 2, (5, 7)), np.ones((8, 8))).astype("uint8")
        for folder, pixels in (("images", labels * 200), ("masks", labels)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{number}.png")
    quick_start, *blocks = readme_blocks(pytestconfig, "sh")
    assert quick_start.count("\n") == 2
    commands = "".join(blocks).splitlines()
    assert len(commands) >= 6
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "keras-fcn"
        name = "train --from-tuning" if "--from-tuning" in words else words[0]
        words = [match for word in words for match in sorted(map(str, Path().glob(word))) or [word]]
        assert main([*words, *SMALL.get(name, "").split()]) == 0, command


@pytest.mark.slow
def test_readme_code_runs(pytestconfig, capsys, tmp_path, monkeypatch):
    """The Python blocks of the README, one after the other, as a reader types them."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    blocks = readme_blocks(pytestconfig, "python")
    namespace = {}
    with warnings.catch_warnings(action="ignore"):
        for block in blocks:
            exec(block, namespace)
    assert namespace["probabilities"].shape == (40, 57, 2)
    assert np.isfinite(namespace["history"].history["val_mean_iou"]).all()
    output = capsys.readouterr().out
    assert "(224, 224) (32, 32)" in output
    # the table in the README is the one that `compare` prints
    readme = (pytestconfig.rootpath / "README.md").read_text()
    table = readme.split("among the rest,\n\n```\n")[1].split("```")[0].splitlines()
    assert len(table) > 3
    assert set(table) <= set(output.splitlines())


def test_readme_tells_of_the_weights_what_their_cards_say(pytestconfig):
    readme = (pytestconfig.rootpath / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", readme, re.M))
    assert set(rows) == set(pretrained())
    for name, card in pretrained().items():
        told = [f"{card['parameters'] / 1e6:.1f} million parameters"]
        for metric in (card["metric"], card["metric"]["with_test_time_augmentation"]):
            told += [f"{metric[score]:.4f}" for score in ("rand", "information") if score in metric]
            told += [] if "rand" in metric else [f"{metric['mean_iou']:.1%}"]
        assert [text for text in told if text not in rows[name]] == []


@pytest.mark.slow
def test_example_dense_is_convolution_runs(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "examples" / "dense_is_convolution.py"
    picture = tmp_path / "heat_map.png"
    result = subprocess.run(
        [sys.executable, script, "--output", picture],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)},
    )
    assert "y = [[[118.0, 545.0], [1108.0, 5333.0], [11008.0, 53213.0]]]" in result.stdout
    assert "dense layers: 123,642,856 of 138,357,544 parameters, 89.4%" in result.stdout
    assert Image.open(picture).size == (640, 427)


DOCTESTS = [
    "architecture", "arguments", "caffe", "convolutionize", "fcn", "inference", "layers", "losses",
    "metrics", "optimizers", "training", "tuner", "unet", "visualize", "weights",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCTESTS)
def test_docstring_examples_run(name):
    import doctest
    import importlib

    import keras_fcn

    module = importlib.import_module(f"keras_fcn.{name}")
    names = {public: getattr(keras_fcn, public) for public in keras_fcn.__all__}
    assert doctest.testmod(module, extraglobs=names).failed == 0
