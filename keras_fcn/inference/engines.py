"""A model as a compiled function of images: by Keras, OpenVINO or ONNX Runtime.

An engine is not trusted unseen: each compiled model is compared with Keras once.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_fcn.arguments import check_choice
from keras_fcn.atomic import temporary_folder
from keras_fcn.convolutionize import is_augmentation
from keras_fcn.inference import quantize
from keras_fcn.inference.onnx import convert_to_onnx
from keras_fcn.inference.products import large_kernels_as_products
from keras_fcn.inference.tiles import View, free_size, takes_size
from keras_fcn.private import (
    flat_layers,
    import_onnxruntime,
    import_openvino,
    without_tables,
)
from keras_fcn.remedies import given, spell

PRECISIONS = ("float32", "bfloat16", "int8")
# Where `precision` is that engine's only.
OF_OPENVINO = PRECISIONS[1:]
# The package of each engine, and what `pip install` takes.
PACKAGES = {
    "openvino": ("openvino", "openvino"),
    "onnx": ("onnxruntime", "onnxruntime onnx tf2onnx"),
}
ENGINES = ("keras", *PACKAGES)
# How far the scores may be from Keras's, as a share of their scale: in float32 at most, in
# bfloat16, which rounds to 8 bits, on average.
TOLERANCE = 1e-3
MEAN_TOLERANCE = 0.02
# Heights and widths of the image for the comparison, the first that the model takes.
PROBES = [(34 * 2**n - 1, 65 * 2**n - 1) for n in range(5)]
PROBES += [(32 * 2**n, 64 * 2**n) for n in range(5)]
# OpenVINO keeps so many kernels, each for one layer and size, so that images of many sizes do
# not fill the memory.
KERNELS = 256
SAMPLES = 64  # numbers of each weight that tell whether it has changed

# model: {(engine, precision, calibration): _Compiled}
_compiled: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_lock = threading.Lock()  # of this table, never held while a model is compiled
# Translations take turns: what they change, policies of layers that models may share and the
# modules that NNCF sees, is the whole process's.
_translating = threading.RLock()


class _Compiled:
    """A model as a function, which one thread compiles while others that want it wait."""

    def __init__(self):
        self.lock = threading.Lock()
        self.weights: bytes | None = None  # a sample of those that it was compiled with
        self.function: Callable | None = None
        self.held: tuple = ()  # what the ids of the calibration are of


def compiled(
    model: keras.Model,
    engine: str = "keras",
    precision: str = "float32",
    calibration: "str | Path | quantize.Calibration | Sequence | None" = None,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a model as a function of images of any size, compiled once and kept.

    Args:
        model: Keras model from one image batch to one output.
        engine: "keras", "openvino" or "onnx".
        precision: "float32"; or "bfloat16" or "int8" for OpenVINO on a processor that has
            such numbers.
        calibration: for "int8" the images to calibrate on: a folder, as a path or as
            `keras_fcn.inference.Calibration`, or a list of arrays.

    Returns:
        Function from a float32 array `(batch, height, width, channels)` to the float32
        array that the model gives.

    Raises:
        ImportError: when the engine's package is missing.
        NotADirectoryError: when there is no folder `calibration`.
        ValueError: for another engine or precision, one that the processor does not
            have, too few images, or an engine whose scores are not Keras's.
    """
    check_choice("engine", engine, ENGINES)
    check_choice("precision", precision, PRECISIONS)
    _check_together(engine, precision, calibration)
    # Keras reads the weights at each call; the others have a copy
    weights = None if engine == "keras" else _sample(model)
    key = engine, precision, quantize.key(calibration)
    with _lock:
        one = _compiled.setdefault(model, {}).setdefault(key, _Compiled())
    with one.lock:
        if one.function is None or one.weights != weights:
            one.function = _compile(model, engine, precision, calibration)
            one.weights, one.held = weights, quantize.held(calibration)
        return one.function


def _check_together(engine, precision, calibration):
    """Raise for options that do not belong together."""
    if precision in OF_OPENVINO and engine != "openvino":
        raise ValueError(
            f"{spell('precision', precision)} is for {spell('engine', 'openvino')}. Received: "
            f"{given('engine', engine)}. Pass the one or leave out the other."
        )
    quantize.check_calibration(precision, calibration)


def _compile(model, engine, precision, calibration):
    if engine == "keras":
        return _compile_keras(model)
    package, command = PACKAGES[engine]
    model = free_size(model)
    try:
        with in_float32(model):
            plain = for_inference(model)
            if engine == "onnx":
                return _compared(model, _compile_onnx(plain), engine)
            return _compile_openvino(model, plain, precision, calibration)
    except (ValueError, OSError, MemoryError):
        raise
    except ImportError as error:
        name = error.name or package
        raise ImportError(
            f"The engine {engine!r} needs the package {name}. Install it by "
            f"`pip install {'nncf' if name == 'nncf' else command}`."
        ) from error
    except Exception as error:  # the converters raise what they like for layers they do not know
        raise ValueError(
            f"The engine {engine!r} should know the layers of the model. Received: {model.name!r}, "
            f"which it does not take: {first_line(error)} Pass {spell('engine', 'keras')}."
        ) from error


def for_inference(model: keras.Model) -> keras.Model:
    """Return a model as one to export: Keras would export augmentation as it is in training."""
    if not any(map(is_augmentation, flat_layers(model))):
        return model
    images = keras.Input(model.inputs[0].shape[1:], name=model.inputs[0].name)
    return keras.Model(images, model(images, training=False), name=model.name)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, ended by a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0][:200].rstrip('. ')}."


@contextlib.contextmanager
def in_float32(model):
    """Let a model of mixed precision compute in float32, as other runtimes do; models in turn."""
    layers = flat_layers(model)
    with _translating:
        policies = [layer.dtype_policy for layer in layers]
        try:
            for layer, policy in zip(layers, policies, strict=True):
                if policy.name.startswith("mixed_"):
                    layer.dtype_policy = "float32"
            yield
        finally:
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy


def _compile_keras(model):
    # a weak reference: the cache must not keep the model alive
    model_ref = weakref.ref(model)
    if keras.backend.backend() != "tensorflow":
        return lambda images: np.asarray(model_ref().predict_on_batch(images), "float32")
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, model.inputs[0].shape[-1]])])
    def function(images):
        with large_kernels_as_products(model_ref()):
            return model_ref()(images, training=False)

    return lambda images: np.asarray(function(tf.constant(images, "float32")), "float32")


def _check_processor(precision):
    """Raise where the processor does not compute in such numbers."""
    openvino = import_openvino()
    if precision == "int8":
        with quantize.without_torch():
            import nncf  # noqa: F401  (before it is looked for after a minute)

        quantize.check_processor()
    if precision == "bfloat16" and "BF16" not in openvino.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise ValueError(
            f"{spell('precision')} should be one that the processor computes in. Received: "
            f"{given('precision', precision)}, and this processor has float32 only. Leave it out."
        )


def _compile_openvino(model, plain, precision, calibration):
    """Return a model as OpenVINO computes it, in 8 bits once it is right in float32."""
    _check_processor(precision)
    if precision != "int8":
        return _compared(
            model, run_openvino(read_openvino(plain), precision), "openvino", precision
        )
    batches = quantize.calibration_images(model, calibration)
    network = read_openvino(plain)
    _compared(model, run_openvino(network), "openvino")
    function = run_openvino(quantize.quantize(network, batches))
    quantize.check_quantized(model, function, batches[0])
    return function


def read_openvino(model: keras.Model):
    """Return a model as an `openvino.Model`."""
    openvino = import_openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file goes
    with temporary_folder() as folder:
        path = folder / "model.xml"
        with without_tables():
            model.export(str(path), format="openvino", verbose=False)
        return core.read_model(path)


def run_openvino(network, precision: str = "float32") -> Callable[[np.ndarray], np.ndarray]:
    """Return an `openvino.Model` as a function of batches of images; threads take turns."""
    openvino = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    }
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    lock = threading.Lock()

    def run(images):
        with lock:
            return request.infer([images])[0].astype("float32")  # a copy: it is reused

    return run


def _compile_onnx(model):
    onnxruntime = import_onnxruntime()
    model(np.zeros(_probe_shape(model), "float32"))  # Keras's export needs one call
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        convert_to_onnx(model, path, spell("engine", "openvino"))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _compared(model, function, engine, precision="float32"):
    """Return the function; raise unless it gives Keras's scores of a random image."""
    image = np.random.default_rng(0).uniform(0, 255, _probe_shape(model)).astype("float32")
    received = function(image)
    # not `compiled`, which would keep what it computes in here
    expected = keras.ops.convert_to_numpy(model(image, training=False))
    same = received.shape == expected.shape
    difference = abs(received - expected) / max(abs(expected).max(), 1e-6) if same else np.inf
    worst, mean = np.max(difference), np.mean(difference)
    wrong = worst > TOLERANCE if precision == "float32" else mean > MEAN_TOLERANCE
    if wrong or not np.isfinite(worst):
        raise ValueError(
            f"The engine {engine!r} should give Keras's scores. Received: scores of "
            f"{model.name!r} that differ by {worst:.2g} of their scale on a random image. Pass "
            f"{spell('engine', 'keras')}; the other translates a layer of this model wrongly."
        )
    return function


def _probe_shape(model):
    """The shape of the comparison's image: of a size that the model takes, no round one if it can.

    A slid classifier takes what is as large as its window, some networks multiples alone.
    """
    fixed, channels = model.inputs[0].shape[1:3], model.inputs[0].shape[-1]
    for free in PROBES:
        size = [side or other for side, other in zip(fixed, free, strict=True)]
        view = View(model, np.empty((*size, channels), "bool"))
        if takes_size(model, view.size):
            break
    return (1, *view.size, channels)


def _sample(model):
    """Return bytes that are others after a training step: some numbers of each weight."""
    return b"".join(map(_some_numbers, model.weights))


def _some_numbers(weight):
    if keras.backend.backend() == "tensorflow":
        # not a copy, as that of the variable itself would be: 0.2 s for an FCN-8s
        numbers = np.asarray(keras.ops.reshape(weight, (-1,)))
    else:
        numbers = keras.ops.convert_to_numpy(weight).ravel()
    return numbers[:: max(1, numbers.size // SAMPLES)].tobytes()
