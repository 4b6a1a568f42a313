import subprocess
import sys

import pytest

import keras_fcn


def test_public_names_exist():
    for name in keras_fcn.__all__:
        assert getattr(keras_fcn, name).__doc__


@pytest.mark.slow
def test_import_costs_what_keras_costs():
    """Nothing heavy is imported that `import keras` does not import already."""
    code = (
        "import sys, time, keras; start = time.perf_counter(); before = set(sys.modules);"
        "import keras_fcn; print(time.perf_counter() - start, *(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, *modules = min((run.stdout.split() for run in runs), key=lambda run: float(run[0]))
    assert float(seconds) < 0.1
    assert not {"PIL", "rich", "scipy", "matplotlib", "tensorflow_datasets"} & set(modules)
