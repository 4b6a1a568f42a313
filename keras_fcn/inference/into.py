"""A prediction larger than memory: into a file, tile by tile, going on after a kill."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_fcn.arguments import check_choice
from keras_fcn.atomic import (
    as_json,
    read_json,
    remove_leftovers,
    replacing,
    telling_full,
    write_json,
)
from keras_fcn.catalogue import classes_of
from keras_fcn.inference.engines import compiled
from keras_fcn.inference.formats import create_npy, write_tiled
from keras_fcn.inference.images import BLOCK, check_image, check_model
from keras_fcn.inference.ledger import fingerprint
from keras_fcn.inference.memory import release
from keras_fcn.inference.predict import OUTPUTS, SYMMETRIES, Pieces, check_options
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import Calibration, fingerprint_of
from keras_fcn.inference.tiles import check_tile_size
from keras_fcn.label_maps import count_classes, to_labels
from keras_fcn.lock import locked

SUFFIXES = (".npy", ".tif", ".tiff", ".zarr")
CHUNK = 1024  # pixels; the side of what a Zarr array is stored in
# What is in the folder of a result that is not whole.
RUN, TILES, DONE, WHOLE = "run.json", "tiles.npy", "done", "whole"


def predict_into(
    model: keras.Model,
    image: np.ndarray,
    path: str | os.PathLike,
    tile_size: int | tuple[int, int] | str = "auto",
    output: str = "labels",
    engine: str = "keras",
    precision: str = "float32",
    test_time_augmentation: bool | str = False,
    calibration: "str | Path | Calibration | Sequence | None" = None,
) -> Path:
    """Predict one image into a file, for images and results larger than memory.

    The result is that of `predict_image`. Each tile is written when it is made, into the folder
    `PATH.part` beside, and the file has its name when it is whole. Killed in the middle, the
    same call goes on with the tiles that are missing, to the same bytes.

    Args:
        model: Keras model, as `predict_image` takes it.
        image: array `(height, width, channels)`: a `numpy.memmap`, or what has a NumPy dtype
            and slices, as an array of Zarr or HDF5; a part at a time is read.
        path: what to write: `.npy`, which `numpy.load(path, mmap_mode="r")` opens without
            reading it; `.tif`, in compressed tiles; or `.zarr`, an array of Zarr.
        tile_size, engine, precision, test_time_augmentation, calibration: as in
            `predict_image`.
        output: "labels", of 8 bits, in a `.tif` with the colours of the classes; or
            "probabilities", float32.

    Returns:
        The path.

    Raises:
        ValueError: as `predict_image`, and for a file of another kind.
        FileExistsError: when the file exists; when `PATH.part` holds the tiles of another
            model, image or call, or another process is at work in it.

    Example:

    >>> import keras_fcn
    >>> model = keras_fcn.from_pretrained("unet_camvid")
    >>> slide = np.load("slide.npy", mmap_mode="r")  # doctest: +SKIP
    >>> keras_fcn.predict_into(model, slide, "slide_labels.tif")  # doctest: +SKIP
    """
    file = Path(path)
    folder = file.with_name(f"{file.name}.part")
    _check_path(file, folder)
    check_choice("output", output, OUTPUTS)
    check_model(model)
    options: dict = {"engine": engine, "precision": precision}
    options["test_time_augmentation"] = test_time_augmentation
    check_options(model, tile_size, calibration=calibration, takes=output, **options)
    options["calibration"] = fingerprint_of(calibration)
    image = check_image(image, model)
    folder.mkdir(exist_ok=True)
    with locked(folder):
        remove_leftovers(file.parent)
        if _is_delivered(folder) and not file.exists():  # it was taken away since
            (folder / DONE).unlink()
        try:
            run = {"weights": fingerprint(model), "image": _digest(image), "output": output}
            network = compiled(model, engine, precision, calibration)
            pieces = _begin(folder, run | options, tile_size, model, image, network)
            if not _is_delivered(folder):
                with telling_full(folder, file):
                    _fill(folder, pieces, image, _finish(model, output))
                _deliver(folder, file, classes_of(model).palette)
        except BaseException:
            if not (folder / DONE).exists() and not _foreign(folder):  # nothing to go on with
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
    return file


def _check_path(path, folder):
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"`path` should end in one of {', '.join(SUFFIXES)}. Received: '{path}'. A `.npy` is "
            "opened without reading it, a `.tif` or `.zarr` is smaller."
        )
    if path.suffix.lower() == ".zarr":
        _zarr()
    if path.exists() and not _is_delivered(folder):
        raise FileExistsError(f"'{path}' exists. Remove it, or choose another name.")


def _is_delivered(folder):
    """Whether a run was killed when its file had its name, and what it needed was still there."""
    return (folder / DONE).exists() and not any((folder / name).exists() for name in (TILES, WHOLE))


def _finish(model, output):
    """Return the function from scores to what is written of them."""
    if output == "probabilities":
        return lambda scores: scores
    dtype = "uint8" if count_classes(model.outputs[0].shape[-1]) <= 256 else "uint16"
    return lambda scores: to_labels(scores).astype(dtype)


def _digest(image):
    """Return the sha256 of an image, read in blocks of rows."""
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    step = max(1, BLOCK // (image.shape[1] * image.shape[2]))
    for top in range(0, len(image), step):
        digest.update(np.ascontiguousarray(image[top : top + step]))
        release(image)
    return digest.hexdigest()


def _foreign(folder):
    """Whether a folder holds what this module has not written."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return bool(names - {RUN, TILES, DONE, WHOLE})


def _begin(folder, run, tile_size, model, image, network):
    """Return the pieces of a run that begins or, with the same tiles, goes on."""
    run = as_json(run)
    if _foreign(folder) or ((folder / TILES).exists() and not (folder / RUN).exists()):
        raise FileExistsError(
            f"'{folder}' exists, and keras_fcn did not write what is in it. Move it, or choose "
            "another name for the result."
        )
    before = read_json(folder / RUN) if (folder / DONE).exists() else None
    if before is not None and tile_size == "auto":
        tile_size = tuple(before.get("tile_size") or ()) or None  # what is free may differ by now
    symmetries = SYMMETRIES[run["test_time_augmentation"]]
    pieces = Pieces(model, network, image, check_tile_size(tile_size), symmetries)
    run["tile_size"] = pieces.tile_size and list(pieces.tile_size)
    if before is None:
        write_json(folder / RUN, run)
        return pieces
    differing = [name for name in run if before.get(name) != run[name]]
    if differing:
        raise FileExistsError(
            f"'{folder}' holds the tiles of another call, with other {', '.join(differing)}. Let "
            "that one go on, or remove the folder, or choose another name for the result."
        )
    return pieces


def _fill(folder, pieces, image, finish):
    """Make the pieces that are missing; the file of those done has a byte for each."""
    done = (folder / DONE).stat().st_size if (folder / DONE).exists() else 0
    if pieces.boxes is None:
        if not done:
            np.save(folder / TILES, finish(pieces.whole()))
            (folder / DONE).write_bytes(b".")
        return
    for box in track(pieces.boxes[done:], "Predicting in tiles", before=done):
        piece = finish(pieces.predict(box))
        if not (folder / DONE).exists():
            create_npy(folder / TILES, piece.dtype, (*pieces.size, *piece.shape[2:]))
        # opened for each, or memory would hold more and more of the file
        result = np.lib.format.open_memmap(folder / TILES, "r+")
        result[box] = piece
        result.flush()
        del result
        release(image)
        with (folder / DONE).open("ab") as file:
            file.write(b".")


def _deliver(folder, path, palette):
    """Give the file its name; before that the tiles are gone, by which it is known as ours."""
    tiles, whole = folder / TILES, folder / WHOLE
    if path.suffix.lower() == ".npy":
        tiles.replace(path)
        return
    if not whole.exists():
        array = np.load(tiles, mmap_mode="r")
        if path.suffix.lower() == ".zarr":
            _write_zarr(whole, array)
        else:
            write_tiled(whole, array, palette if array.dtype == np.uint8 else None)
        del array
    tiles.unlink(missing_ok=True)
    whole.replace(path)


def _write_zarr(path, array):
    chunks = (CHUNK, CHUNK, *array.shape[2:])
    with replacing(path) as beside:
        written = _zarr().create_array(beside, shape=array.shape, dtype=array.dtype, chunks=chunks)
        for top in range(0, len(array), CHUNK):
            written[top : top + CHUNK] = array[top : top + CHUNK]
            release(array)


def _zarr():
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            "A `.zarr` needs the package zarr. Install it by `pip install zarr`, or write a `.npy`."
        ) from error
    return zarr
