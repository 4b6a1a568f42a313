import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor

import forked
import keras
import numpy as np
import pytest

from keras_fcn import UNet
from keras_fcn.private import (
    flat_layers,
    import_openvino,
    operation_of,
    without_numbers,
    without_tables,
    without_traces,
)

MOVED = "Keras has moved what keras_fcn/private.py reaches for: "


def test_operation_of_a_tensor():
    images = keras.Input((8, 8, 3), name="images")
    layer = keras.layers.Conv2D(2, 1)
    assert operation_of(layer(images)) is layer, MOVED + "the layer that made a tensor"
    assert operation_of(images).name == "images", MOVED + "the layer of an input"


def test_flat_layers_of_nested_ones():
    inner = keras.layers.Conv2D(2, 1)
    model = keras.Sequential([keras.layers.TimeDistributed(inner)])
    assert flat_layers(model)[0] is model, MOVED + "the layers of a model"
    assert inner in flat_layers(model), MOVED + "the layers within layers"


def test_networks_without_numbers_leave_none_behind():
    with without_numbers():
        large = UNet()
    assert large.count_params() == 31_031_810
    assert all(weight._value is None for weight in large.weights), MOVED + "stateless scopes"
    small = UNet(filters=(4, 8))  # would give the large one its numbers
    assert all(weight._value is None for weight in large.weights), MOVED + "what waits for numbers"
    assert np.isfinite(small(np.zeros((1, 8, 8, 3)))).all()


def graphs():
    gc.collect()
    return weakref.WeakSet(
        thing for thing in gc.get_objects() if type(thing).__name__ == "FuncGraph"
    )


def test_a_training_leaves_no_graph_behind():
    before = graphs()
    with without_traces():
        model = keras.Sequential([keras.layers.Dense(2)])
        model.compile("adam", "mse")
        model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
        # those of other tests may go meanwhile, so it is the training's own that are followed
        own = graphs() - before
        assert own or keras.backend.backend() != "tensorflow"
        del model
    gc.collect()
    assert not own, MOVED + "where TensorFlow registers gradients"


def test_openvino_does_not_tell_its_makers():
    code = "from keras_fcn.private import import_openvino; import_openvino()\n"
    code += "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    said = forked.run(["-c", code], check=True).stdout.split()
    assert said == ["openvino.tools.ovc.telemetry_stub"], "OpenVINO tells of each use otherwise"


def test_onnx_runtime_does_not_tell_its_makers(tmp_path):
    """Where it does, it leaves a number in the folder of temporary files."""
    code = "from keras_fcn.private import import_onnxruntime; import_onnxruntime()"
    forked.run(["-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
    assert not list(tmp_path.iterdir()), "ONNX Runtime tells of each use otherwise"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="there Keras needs the search")
def test_a_conversion_does_not_search_for_tables(tmp_path):
    looked_at = []

    class Curious(keras.layers.Layer):
        @property
        def attribute(self):
            looked_at.append(1)

        def call(self, images):
            return images + 1

    import_openvino()  # else Keras does, and its makers are told
    images = keras.Input((None, None, 3))
    model = keras.Model(images, Curious()(images))
    with without_tables():
        model.export(str(tmp_path / "model.xml"), format="openvino", verbose=False)
    assert (tmp_path / "model.bin").is_file()
    assert not looked_at, MOVED + "the search for tables"
    with without_tables(), ThreadPoolExecutor() as threads:
        again = {"format": "openvino", "verbose": False}
        threads.submit(model.export, str(tmp_path / "again.xml"), **again).result()
    assert looked_at, "Keras searches no more, and `without_tables` may go"
