"""The conversion of a model to ONNX, for the engine and for files."""

import logging
import warnings
from pathlib import Path

import keras

from keras_fcn.inference import memory
from keras_fcn.private import without_tables

# Of the conversion, of the weights': 48 for 166 MB of an FCN-8s, 70 for 31 MB of a U-Net.
MEMORY = 50


def convert_to_onnx(model: keras.Model, path: Path, instead: str) -> None:
    """Write a model to an ONNX file by Keras; warn where the memory may not do.

    Args:
        model: Keras model that was called once.
        path: of the file.
        instead: what takes less memory, as the caller types it.
    """
    needed, free = MEMORY * 4 * model.count_params(), memory.free_memory()
    if needed > free != memory.UNKNOWN:
        warnings.warn(
            f"The conversion to ONNX takes about {MEMORY} times the memory of the weights. "
            f"Received: {model.name!r}, which needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            f"are free: the system may end the process. Take {instead}, or a larger machine.",
            stacklevel=2,
        )
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), without_tables():
        warnings.simplefilter("ignore", FutureWarning)  # Keras asks for `np.object`
        model.export(str(path), format="onnx", verbose=False)
