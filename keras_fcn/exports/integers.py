"""Exported files whose networks compute in integers of 8 bits, by the makers of their runtimes.

But for the first convolution, as `keras_fcn.inference.quantize.quantize` says.
"""

from pathlib import Path

import numpy as np

from keras_fcn.atomic import temporary_folder
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import quantize
from keras_fcn.private import import_onnxruntime, import_openvino


def quantize_openvino(path: Path, batches: list[np.ndarray]) -> None:
    """Let the network in OpenVINO's two files compute in integers of 8 bits, by NNCF."""
    openvino = import_openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the files are written anew
    network = core.read_model(path)
    classes = network.get_rt_info(["classes"]).value
    network = quantize(network, batches)
    network.set_rt_info(classes, ["classes"])
    openvino.serialize(network, path)


def quantize_onnx(path: Path, batches: list[np.ndarray]) -> None:
    """Let the network in an ONNX file compute in integers of 8 bits, by ONNX Runtime.

    Its maps are unsigned and its kernels signed, each filter with a scale of its own, as
    processors with VNNI multiply them. What ends the network stays float32: its 256 values would
    make classes equal that are not.
    """
    import_onnxruntime()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    before = onnx.load(path)
    with temporary_folder(elsewhere=True) as folder:
        prepared = folder / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        quantize_static(
            prepared,
            path,
            _Reader(graph.input[0].name, batches),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_exact(graph),
        )
    after = onnx.load(path)
    properties = {entry.key: entry.value for entry in before.metadata_props}
    onnx.helper.set_model_props(after, properties)
    onnx.save(after, path)


def _exact(graph):
    """Return the names of the nodes that stay float32."""
    convolution = next((node.name for node in graph.node if node.op_type == "Conv"), None)
    ends = [node.name for node in graph.node if node.op_type in ("Softmax", "Sigmoid")]
    return [name for name in (convolution, *ends) if name]


class _Reader:
    """Images as ONNX Runtime asks for them, with a bar where that takes long."""

    def __init__(self, name, batches):
        self.name, self.batches = name, track(batches, "Calibrating")

    def get_next(self):
        """Return the inputs of the network, or None at the end."""
        images = next(self.batches, None)
        return None if images is None else {self.name: images}
