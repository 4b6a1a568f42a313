import subprocess
import sys

import pytest

import keras_fcn


def test_public_names_exist():
    for name in keras_fcn.__all__:
        assert getattr(keras_fcn, name).__doc__


@pytest.mark.slow
def test_import_costs_what_keras_costs():
    """No package is imported that `import keras` does not import already."""
    code = (
        "import sys, keras; before = set(sys.modules); import keras_fcn;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) - sys.stdlib_module_names == {"keras_fcn"}
