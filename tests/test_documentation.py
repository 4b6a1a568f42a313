import os
import re
import subprocess
import sys
import warnings

import pytest
from PIL import Image


@pytest.mark.slow
def test_readme_code_runs(pytestconfig, capsys):
    """The Python blocks of the README, one after the other, as a reader types them."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (pytestconfig.rootpath / "README.md").read_text(), re.M | re.S
    )
    namespace = {}
    with warnings.catch_warnings(action="ignore"):
        for block in blocks:
            exec(block, namespace)
    assert namespace["probabilities"].shape == (40, 57, 2)
    output = capsys.readouterr().out
    assert "(224, 224) (32, 32)" in output
    # the table in the README is the one that `compare` prints
    readme = (pytestconfig.rootpath / "README.md").read_text()
    table = readme.split("among the rest,\n\n```\n")[1].split("```")[0].splitlines()
    assert len(table) > 3
    assert set(table) <= set(output.splitlines())


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
    "arguments", "caffe", "convolutionize", "fcn", "inference", "layers", "losses", "metrics",
    "training", "unet", "visualize", "weights",
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
