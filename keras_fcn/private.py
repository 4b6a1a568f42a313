"""What this package needs of others and has no public door to, all in one place.

Each has a test that says what has moved when a new release breaks it.
"""

import contextlib
import os
import sys
import threading

import keras
from keras.src.backend.common import global_state

_conversions = threading.RLock()  # of the threads that convert, one at a time


def import_openvino():
    """Return OpenVINO, which does not tell its makers of each use.

    It would, also when it is imported, by processes that it forks, and leave the user's number
    in the home folder; a file there is its only setting. Without the package it goes on.
    """
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def import_onnxruntime():
    """Return ONNX Runtime, which does not tell its makers of each use.

    It would from its import on (1.32 does so on Linux, too), and leave a number in the folder of
    temporary files. What the user has set in the environment stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def operation_of(tensor):
    """Return the layer or operation of a Keras graph that makes a symbolic tensor."""
    return tensor._keras_history.operation


def flat_layers(layer):
    """Return a layer or model and all layers within it, in a fixed order."""
    return list(layer._flatten_layers())


def copy_state(source, target, fit=lambda array, _: array):
    """Give a layer or model all that another of its kind saves, also what is no weight of it.

    Args:
        source: layer or model, built.
        target: one made of its settings, built; the layers within it are those of `source`.
        fit: function of a saved array and the layer that takes it, to the array as it takes it.
    """
    for old, new in zip(flat_layers(source), flat_layers(target), strict=True):
        state = {}
        old.save_own_variables(state)
        if state:
            arrays = {key: keras.ops.convert_to_numpy(value) for key, value in state.items()}
            new.load_own_variables({key: fit(array, new) for key, array in arrays.items()})


def fused_batch_norm(maps, gamma, beta, epsilon):
    """Normalise maps by their own mean and variance in TensorFlow's one operation for that.

    Args:
        maps: tensor (batch, height, width, channels), of 16 or 32 bits.
        gamma, beta: float32 variables (channels,).
        epsilon: what is added to the variance.

    Returns:
        maps of the same shape and dtype; mean and variance, float32 (channels,): that of the
        maps themselves, where the operation gives an estimate for more than them.
    """
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps,
        scale=tf.convert_to_tensor(gamma),
        offset=tf.convert_to_tensor(beta),
        mean=[],
        variance=[],
        epsilon=epsilon,
    )
    # their product as an integer may be above 2³¹
    count = tf.reduce_prod(tf.cast(tf.shape(maps)[:-1], "float32"))
    return outputs, mean, variance * (count - 1) / count


@contextlib.contextmanager
def without_numbers():
    """Let networks be built within the block whose weights have shapes only, and take no memory.

    Keras lists the variables that a scope has left without a value, and gives them one at the
    next layer that is built: the list is put back.
    """
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, before)


@contextlib.contextmanager
def without_traces():
    """Let the graphs of trainings within the block go with their models.

    Every `fit` on TensorFlow takes the sum of the gradients over the devices, by an operation
    with a gradient of its own (`ReplicaContext.all_reduce`). That is registered for good, and
    holds the graph, which holds the weights and what the optimizer keeps of them: 130 MB for
    each U-Net of 8 million parameters that Adam trains. No one asks for it once the graph is made.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow.python.framework.ops import gradient_registry

    gradients = gradient_registry._registry
    before = set(gradients)
    try:
        yield
    finally:
        for name in set(gradients) - before:
            if name.startswith("CustomGradient-"):
                del gradients[name]


@contextlib.contextmanager
def without_tables():
    """Let Keras convert models within the block without a search for tables of words in them.

    It reads every attribute of every layer for it, a third of the time of a conversion, so that
    the table of a `StringLookup` is in the file. A network of images has none; what another
    thread exports may. On JAX it makes the variables of the file at the same place, so there it
    goes on.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from keras.src.export.saved_model_export_archive import SavedModelExportArchive as Archive

    converting = threading.get_ident()
    with _conversions:
        track = Archive.track

        def search(archive, resource):
            if threading.get_ident() != converting:
                track(archive, resource)

        Archive.track = search
        try:
            yield
        finally:
            Archive.track = track
