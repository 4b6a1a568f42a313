"""Predictions of many images into a folder."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from keras_fcn.catalogue import classes_of
from keras_fcn.datasets.images import read_image
from keras_fcn.inference import ledger
from keras_fcn.inference.engines import compiled
from keras_fcn.inference.images import check_model
from keras_fcn.inference.objects import ObjectSettings, find_objects
from keras_fcn.inference.predict import check_options, predict_image
from keras_fcn.inference.progress import track
from keras_fcn.inference.sources import check_outputs, find_jobs
from keras_fcn.inference.tiles import check_tile_size, receptive_field_of
from keras_fcn.label_maps import to_labels
from keras_fcn.lock import locked

MOST = 65535  # objects in a map of 16 bits
AHEAD = 2  # images that are read, or wait to be written, beside the one that is predicted


@dataclasses.dataclass(frozen=True)
class FolderResult:
    """What `predict_folder` did.

    Attributes:
        done: {image: paths of what was written for it}, predicted now.
        skipped: images that an earlier run had finished.
        failed: {image: error} of those set aside.
    """

    done: dict
    skipped: list
    failed: dict


def predict_folder(
    model: keras.Model,
    source: str | os.PathLike | Iterable,
    output: str | os.PathLike,
    *,
    gray: bool = False,
    objects: bool = False,
    tile_size: int | tuple[int, int] | None = None,
    engine: str = "keras",
    precision: str = "float32",
    white: float | None = None,
    max_pixels: int | None = None,
    **averages,
) -> FolderResult:
    """Predict images, and write label maps and overlays.

    For `IMAGE.jpg` it writes `IMAGE.png`, a palette PNG whose pixel values are the
    classes, and `IMAGE_overlay.png`, the image with the classes laid over it; and one line
    into `summary.csv`, with the pixels of each class. An image that can't be read or
    predicted goes into `errors.csv`, and the rest goes on. The same call again does what is
    missing.

    Args:
        model: Keras model, as `predict_image` takes it.
        source: an image, a folder with images, also deeper in it, a pattern as
            "slides/*/*.tif", or several of these.
        output: folder to write to, made if need be; it gets the folders of the source.
        gray: whether label maps are gray PNGs of plain class numbers, as OpenCV and
            scikit-image read them, without colours.
        objects: whether also `IMAGE_objects.png` is written, of 16 bits, with the number of
            the object of each pixel, `IMAGE_outlines.png`, and a line for each object into
            `objects.csv`: number, class, area, centroid, box, mean probability and mean
            intensity.
        tile_size, engine, precision: as in `predict_image`.
        white, max_pixels: as in `keras_fcn.datasets.images.read_image`.
        **averages: its `test_time_augmentation` and `scales`.

    Returns:
        `FolderResult`.

    Raises:
        FileNotFoundError: when a path does not exist, or no image is there.
        ValueError: for an argument out of its range, and where outputs would share a file
            with each other or an image; nothing is written then.
        FileExistsError: when the folder holds the predictions of other weights or options,
            a file that this package did not write, or another run is at work in it.

    Example:

    >>> import keras_fcn
    >>> model = keras_fcn.from_pretrained("unet_camvid")
    >>> keras_fcn.predict_folder(model, "photos", "predictions")  # doctest: +SKIP
    """
    output = Path(output)
    check_model(model)
    check_options(**averages)
    compiled(model, engine, precision)
    if tile_size is not None:
        check_tile_size(tile_size)
        receptive_field_of(model)
    writer = _Writer(model, output, gray, objects)
    jobs = find_jobs(source, output)
    check_outputs(jobs, output, writer.kinds)
    output.mkdir(parents=True, exist_ok=True)
    averages = {"test_time_augmentation": False, "scales": (1,), **averages}
    options = {"engine": engine, "precision": precision, **averages}
    run = {"weights": ledger.fingerprint(model), "gray": gray, "objects": objects, **options}
    run["white"] = white
    known = {str(job.stem): job for job in jobs}

    def is_current(file, image):
        return file not in known or _is_current(known[file], image, writer)

    with locked(output):
        book = ledger.Ledger(output, run, *writer.columns, is_current)
        read = functools.partial(
            read_image, channels=model.inputs[0].shape[-1], white=white, max_pixels=max_pixels
        )
        return _work(model, jobs, writer, book, read, {"tile_size": tile_size, **options})


def _work(model, jobs, writer, book, read, options):
    """Predict what is missing, while others are read and written."""
    skipped = [job for job in jobs if str(job.stem) in book.done]
    todo = [job for job in jobs if str(job.stem) not in book.done]
    done, failed = {}, {}

    def set_aside(job, error):
        failed[str(job.image)] = str(error)
        book.fail(str(job.image), str(error))

    def settle(job, writing):
        try:
            done[str(job.image)] = writing.result()
        except ValueError as error:  # not OSError: what can't be written now can't be later
            set_aside(job, error)

    with (
        concurrent.futures.ThreadPoolExecutor(1) as reading,
        concurrent.futures.ThreadPoolExecutor(1) as writing,
    ):
        images = [reading.submit(read, job.image) for job in todo[:AHEAD]]
        written = []
        for number, job in enumerate(track(todo, "Predicting")):
            if number + AHEAD < len(todo):
                images.append(reading.submit(read, todo[number + AHEAD].image))
            try:
                image, images[number] = images[number].result(), None
                scores = predict_image(model, image, **options)
            except _setting_aside() as error:
                set_aside(job, error)
                continue
            written.append((job, writing.submit(_write, writer, book, job, image, scores)))
            if len(written) > AHEAD:
                settle(*written.pop(0))
        for pair in written:
            settle(*pair)
    return FolderResult(done, [str(job.image) for job in skipped], failed)


def _write(writer, book, job, image, scores):
    values, objects = writer.write(job, image, scores)
    book.add(str(job.stem), str(job.image.resolve()), values, objects)
    return [job.file(writer.output, kind) for kind in writer.kinds]


def _is_current(job, image, writer):
    """Whether what is written is of this image, as it is now."""
    with contextlib.suppress(OSError):
        files = [job.file(writer.output, kind) for kind in writer.kinds]
        time = job.image.stat().st_mtime
        same = str(job.image.resolve()) == image
        return same and all(file.stat().st_mtime >= time for file in files)
    return False


def _setting_aside():
    """The errors that one image may cause, and another not."""
    tensorflow = sys.modules.get("tensorflow")
    operations = (tensorflow.errors.OpError,) if tensorflow is not None else ()
    return (ValueError, OSError, MemoryError, *operations)


class _Writer:
    """Writes what is wanted of an image."""

    def __init__(self, model, output, gray, objects):
        self.model = model
        self.output = output
        self.gray = gray
        self.classes = classes_of(model)
        if len(self.classes) > 256:
            raise ValueError(
                "A label map has 8 bits, so it holds 256 classes at most. Received: a model of "
                f"{len(self.classes)}. Call `keras_fcn.predict_image`."
            )
        self.settings = ObjectSettings.of(model) if objects else None
        self.kinds = ("", "overlay", *(("objects", "outlines") if objects else ()))
        object_columns = (
            "number", "class", "area", "row", "column", "top", "left", "bottom", "right",
            "mean_probability", "mean_intensity",
        )  # fmt: skip
        self.columns = (
            ("height", "width", *self.classes.names),
            object_columns if objects else (),
        )

    def write(self, job, image, scores):
        """Write the files of one image; return its line of the summary, and of its objects."""
        from keras_fcn.inference.pictures import draw_classes, draw_outlines, to_bytes
        from keras_fcn.visualize import write_label_map, write_png

        labels = to_labels(scores)
        job.file(self.output).parent.mkdir(parents=True, exist_ok=True)
        palette = self.classes.palette
        picture = draw_classes(self.model, to_bytes(image), labels, self.classes)
        write_png(job.file(self.output, "overlay"), picture)
        lines = []
        if self.settings is not None:
            from keras_fcn.inference.measure import measure_objects

            objects = find_objects(scores, self.settings)
            if objects.max() > MOST:
                raise ValueError(
                    f"A map of objects has 16 bits, so it holds {MOST} at most. Received: "
                    f"{objects.max()}. Predict the image in parts, or call "
                    "`keras_fcn.predict_objects`."
                )
            lines = measure_objects(objects, scores, image, self.classes.names, self.settings)
            _write_gray(job.file(self.output, "objects"), objects.astype("uint16"))
            write_png(job.file(self.output, "outlines"), draw_outlines(to_bytes(image), objects))
        if self.gray:
            _write_gray(job.file(self.output), labels.astype("uint8"))
        else:
            write_label_map(job.file(self.output), labels, palette)
        pixels = np.bincount(labels.ravel(), minlength=len(self.classes))
        return [*labels.shape, *pixels.tolist()], lines


def _write_gray(path, values):
    from PIL import Image

    from keras_fcn.visualize import write_png

    write_png(path, Image.fromarray(values))
