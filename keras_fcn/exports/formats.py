"""The formats: how each is written, and how its own runtime opens it."""

import contextlib
import dataclasses
import functools
import json
import threading
from collections.abc import Callable

import numpy as np

from keras_fcn.atomic import parse_json, write_json
from keras_fcn.classes import Classes
from keras_fcn.inference.onnx import convert_to_onnx
from keras_fcn.private import import_onnxruntime, import_openvino, without_tables
from keras_fcn.remedies import spell


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file opened in its runtime.

    Attributes:
        predict: function from images `(batch, height, width, channels)` to float32 maps
            `(batch, height, width, num_classes)`; threads may call it at once.
        classes: `keras_fcn.Classes`.
        channels: of the images.
    """

    predict: Callable
    classes: Classes
    channels: int

    def __post_init__(self):
        object.__setattr__(
            self, "predict", functools.partial(_predict, self.predict, self.channels)
        )


def _predict(run, channels, images):
    """Return the maps of a batch of images, which the runtimes take as float32."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != channels or images.dtype.kind not in "buif":
        raise ValueError(
            f"Images should be numbers of the shape (batch, height, width, {channels}). Received: "
            f"an array of the shape {images.shape} and dtype {images.dtype}. Pass one image as "
            "`image[None]`."
        )
    return run(images.astype("float32", copy=False))


def dump(classes):
    """Return the classes as the text that is in the files."""
    return json.dumps(classes.to_config())


def parse(text):
    """Return the classes of a file, from the text in it."""
    if text is None:
        raise ValueError("of classes it holds none")
    return Classes.from_config(parse_json(text))


def _read(path):
    return path.read_text() if path.is_file() else None


def write_saved_model(model, path, classes):
    """Write a SavedModel, with the classes beside its assets."""
    model.export(str(path), verbose=False)
    extra = path / "assets.extra"
    extra.mkdir()
    write_json(extra / "classes.json", classes.to_config())


def open_saved_model(path):
    """Open a SavedModel as an `Exported`."""
    import tensorflow as tf

    classes = parse(_read(path / "assets.extra" / "classes.json"))
    loaded = tf.saved_model.load(str(path))  # its function alone would lose the weights
    _, arguments = loaded.signatures["serve"].structured_input_signature
    channels = next(iter(arguments.values())).shape[-1]
    return Exported(lambda images: loaded.serve(images).numpy(), classes, channels)


def write_onnx(model, path, classes):
    """Write an ONNX file, with the classes in its properties."""
    import onnx

    convert_to_onnx(model, path, spell("format", "openvino"))
    proto = onnx.load(path)
    _name(proto.graph)
    onnx.helper.set_model_props(proto, {"classes": dump(classes)})
    onnx.save(proto, path)


def _name(graph):
    """Give the output and the free axes the names that people look for."""
    converted, graph.output[0].name = graph.output[0].name, "predictions"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["predictions" if name == converted else name for name in names]
    for tensor, axes in (
        (graph.input[0], ("batch", "height", "width")),
        (graph.output[0], ("batch", "output_height", "output_width")),
    ):
        for axis, dimension in zip(axes, tensor.type.tensor_type.shape.dim, strict=False):
            dimension.dim_param = axis


def open_onnx(path):
    """Open an ONNX file as an `Exported`, in ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it keeps the memory of the largest image
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images_input = session.get_inputs()[0]
    classes = parse(session.get_modelmeta().custom_metadata_map.get("classes"))
    return Exported(
        lambda images: session.run(None, {images_input.name: images})[0],
        classes,
        images_input.shape[-1],
    )


def write_openvino(model, path, classes):
    """Write OpenVINO's two files, with the classes in the information of the first."""
    openvino = import_openvino()
    plain = path.with_name("without_classes.xml")
    with without_tables():
        model.export(str(plain), format="openvino", verbose=False)
    converted = openvino.Core().read_model(plain)
    converted.set_rt_info(dump(classes), ["classes"])
    openvino.serialize(converted, path)
    del converted  # it holds the file of the weights
    plain.unlink()
    plain.with_suffix(".bin").unlink()


def open_openvino(path):
    """Open OpenVINO's files as an `Exported`."""
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    text = model.get_rt_info(["classes"]).value if model.has_rt_info(["classes"]) else None
    # some processors would compute in bfloat16, and kernels for images of all sizes be kept
    settings = {"INFERENCE_PRECISION_HINT": "f32", "CPU_RUNTIME_CACHE_CAPACITY": 256}
    compiled = core.compile_model(model, "CPU", settings)
    return Exported(
        lambda images: compiled.infer_new_request({0: images})[0],
        parse(text),
        model.input(0).partial_shape[-1].get_length(),
    )


def write_litert(model, path, classes):
    """Write a LiteRT file, and its classes in a file beside it."""
    import tensorflow as tf

    # TensorFlow's own kernels (`SELECT_TF_OPS`) are not in LiteRT's interpreter
    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    with contextlib.redirect_stdout(None), without_tables():
        model.export(str(path), format="litert", verbose=False, target_spec=builtins)
    write_json(litert_classes(path), classes.to_config())


def litert_classes(path):
    """Return the path of the classes of a LiteRT file."""
    return path.with_name(f"{path.name}.json")


def open_litert(path):
    """Open a LiteRT file as an `Exported`."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    details = interpreter.get_input_details()[0]
    images_index = details["index"]
    maps_index = interpreter.get_output_details()[0]["index"]
    lock = threading.Lock()  # an interpreter holds the images that it works on

    def predict(images):
        with lock:
            interpreter.resize_tensor_input(images_index, images.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(images_index, np.asarray(images, "float32"))
            interpreter.invoke()
            return interpreter.get_tensor(maps_index)

    channels = int(details["shape_signature"][-1])
    return Exported(predict, parse(_read(litert_classes(path))), channels)
