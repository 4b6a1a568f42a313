"""The table of the formats, and how a file is opened whose format its ending tells."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from keras_fcn.exports import bioimageio, formats, integers
from keras_fcn.inference.engines import first_line


@dataclasses.dataclass(frozen=True)
class Format:
    """How a format is written and opened, and what that needs."""

    suffix: str
    converters: tuple  # packages that writing needs
    runtime: str  # the package that opens a file
    write: Callable  # of (model, path, classes)
    open: Callable  # of path, to `Exported`
    companions: Callable = lambda _path: ()  # of path, to the files that lie beside it
    quantize: Callable | None = None  # of (path, batches of images), to integers of 8 bits


FORMATS = {
    "saved_model": Format(
        "", (), "tensorflow", formats.write_saved_model, formats.open_saved_model
    ),
    "onnx": Format(
        ".onnx",
        ("tf2onnx", "onnx"),
        "onnxruntime",
        formats.write_onnx,
        formats.open_onnx,
        quantize=integers.quantize_onnx,
    ),
    "litert": Format(
        ".tflite",
        ("tensorflow",),
        "ai_edge_litert",
        formats.write_litert,
        formats.open_litert,
        lambda path: (formats.litert_classes(path),),
    ),
    "openvino": Format(
        ".xml",
        (),
        "openvino",
        formats.write_openvino,
        formats.open_openvino,
        lambda path: (path.with_suffix(".bin"),),
        integers.quantize_openvino,
    ),
    "bioimageio": Format(
        ".zip",
        ("tf2onnx", "onnx", "bioimageio.core"),
        "onnxruntime",
        bioimageio.write_bioimageio,
        bioimageio.open_bioimageio,
    ),
}


def open_export(path: str | os.PathLike) -> formats.Exported:
    """Open a file that `export` wrote, in its own runtime.

    Args:
        path: file or folder.

    Returns:
        `Exported`: `predict`, a function of images, and `classes`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a file that `export` did not write.
        ImportError: when the runtime is missing.

    Example:

    >>> exported = open_export("unet.onnx")  # doctest: +SKIP
    >>> exported.predict(images).shape  # doctest: +SKIP
    (1, 31, 57, 2)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no exported file '{path}'.")
    suffix = "" if path.is_dir() else path.suffix
    name = next((name for name, kind in FORMATS.items() if kind.suffix == suffix), None)
    if name is None:
        endings = ", ".join(kind.suffix for kind in FORMATS.values() if kind.suffix)
        raise ValueError(
            f"An exported file ends in one of {endings}, or is the folder of a SavedModel. "
            f"Received: '{path}'."
        )
    check_packages(name, (FORMATS[name].runtime,))
    try:
        return FORMATS[name].open(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the runtimes raise whatever they do
        raise ValueError(
            "An exported file should be whole, with its classes, as `keras_fcn.export` wrote it. "
            f"Received: '{path}', but {first_line(error)} Export the model again."
        ) from error


def check_packages(name, packages):
    """Raise `ImportError` for packages of a format that are not installed."""
    missing = [package for package in packages if _is_missing(package)]
    if missing:
        extra = {"bioimageio": "bioimageio", "int8": "int8"}.get(name, "export")
        raise ImportError(
            f"The format {name!r} needs {', '.join(missing)}, which this Python lacks. Install "
            f"with `pip install 'keras-fcn[{extra}]'`."
        )


def _is_missing(package):
    try:
        return importlib.util.find_spec(package) is None
    except ModuleNotFoundError:  # of the package that should hold it
        return True
