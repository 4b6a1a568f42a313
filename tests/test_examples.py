"""Every example runs at a tiny size, offline, and writes its picture; notebooks are the scripts."""

import os
import runpy

import forked
import numpy as np
import pytest
from PIL import Image

from keras_fcn.datasets.shapes import draw_cells

# one process for what they share
pytestmark = pytest.mark.xdist_group("examples")

# script, arguments, text of the output, width of the picture
EXAMPLES = [
    (
        "finetune_few_images",
        "--epochs 1 --steps 1 --seeds 1",
        "| 20 images, from unet_vgg16_camvid |",
        700,
    ),
    ("finetune_imagenet", "--weights none --epochs 1 --steps 1", "All layers, at a", 1200),
    ("own_classifier", "--epochs 1", "shapes are told right", 640),
    ("predict_large_image", "--height 256 --width 320 --tile-size 128", "The same class at", 320),
    ("serve", "", "200 OK image/png", 640),
    ("train_em", "--filters 4 8 --tile 48 --epochs 1 --steps 2", "4 slices: Rand score", 576),
    ("tune", "--trials 1 --epochs 1", "learning_rate", 700),
]

# Examples that train networks that ship, or on VGG16: small ones do it here.
LARGE = ("finetune_few_images", "finetune_imagenet", "finetune_tfds")
# An example in a process of small networks, where TFDS tries a download once instead of ten times.
SMALL = """
import runpy, sys, tempfile
from pathlib import Path
import pytest
from conftest import narrow_networks, ship_small
from tensorflow_datasets.core.download import downloader
downloader.MAX_RETRIES = 0
patch = pytest.MonkeyPatch()
narrow_networks(patch)
with tempfile.TemporaryDirectory() as folder:
    ship_small(patch, Path(folder), "unet_camvid", "unet_vgg16_camvid")
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory, pytestconfig):
    """The environment of a machine without network, whose TFDS folder the examples share."""
    closed = "http://127.0.0.1:9"
    return os.environ | {
        "PYTHONPATH": str(pytestconfig.rootpath),
        "TFDS_DATA_DIR": str(tmp_path_factory.mktemp("tfds")),
        "HTTP_PROXY": closed,
        "HTTPS_PROXY": closed,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def run(pytestconfig, tmp_path, offline):
    """Run an example, and return its output and its picture."""

    def run(script, arguments):
        launcher = ["-c", SMALL] if script in LARGE else []
        path = pytestconfig.rootpath / "examples" / f"{script}.py"
        picture = tmp_path / "pictures" / "picture.png"
        command = [*launcher, path, *arguments, "--output", picture]
        result = forked.run(command, check=True, cwd=tmp_path, env=offline)
        assert [file.name for file in tmp_path.iterdir()] == ["pictures"]  # and nothing else
        return result.stdout, Image.open(picture)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("script", "arguments", "text", "width"), EXAMPLES)
def test_runs_and_writes_its_picture(script, arguments, text, width, run):
    output, picture = run(script, arguments.split())
    assert text in output
    assert picture.width == width


@pytest.mark.slow
def test_finetune_tfds_goes_on_without_a_network(run):
    output, picture = run("finetune_tfds", ["--epochs=1", "--steps=2"])
    assert "oxford_iiit_pet can't be downloaded: " in output
    assert "Going on with shapes/street" in output
    assert "val_mean_iou" in output
    assert picture.width == 1800


@pytest.mark.slow
def test_train_em_takes_a_folder(run, tmp_path_factory, rng):
    data = tmp_path_factory.mktemp("isbi2012")
    for kind in ("image", "label"):
        (data / kind).mkdir()
    for number in range(6):
        image, cells = draw_cells(rng)
        Image.fromarray(image[..., 0]).save(data / "image" / f"{number}.png")
        Image.fromarray(np.uint8(255) * cells).save(data / "label" / f"{number}.png")
    arguments = "--filters 4 8 --tile 48 --epochs 1 --steps 2".split()
    output, picture = run("train_em", ["--data", data, *arguments])
    assert "4 slices: Rand score" in output
    assert picture.size == (576, 384)


@pytest.mark.slow
def test_train_em_refuses_a_tile_that_does_not_fit(pytestconfig, offline):
    command = ["examples/train_em.py", "--filters", "4", "8", "--tile", "47"]
    result = forked.run(command, cwd=pytestconfig.rootpath, env=offline)
    assert result.returncode == 2
    assert "--tile should be 18 + a multiple of 2 for this network" in result.stderr


def test_notebooks_are_made_of_the_scripts(pytestconfig):
    examples = pytestconfig.rootpath / "examples"
    make = runpy.run_path(str(pytestconfig.rootpath / "tools" / "make_notebooks.py"))
    notebooks = {path.stem: path.read_text() for path in (examples / "notebooks").iterdir()}
    made = {name: make["to_notebook"](examples / f"{name}.py") for name in make["SCRIPTS"]}
    assert notebooks == made, "Run `python tools/make_notebooks.py`."
    assert all("parse_args([])" in text for text in notebooks.values())
    cells = {script for script, *_ in EXAMPLES} | {"dense_is_convolution", "finetune_tfds"}
    assert set(notebooks) == cells  # every example is a notebook, and is run here
