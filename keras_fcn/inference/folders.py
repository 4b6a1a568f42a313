"""Predictions of many images into a folder."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable
from pathlib import Path

import keras

from keras_fcn.arguments import check_reading
from keras_fcn.atomic import remove_leftovers
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.stacks import count_pages, read_stack
from keras_fcn.inference import ledger
from keras_fcn.inference.formats import parse_formats
from keras_fcn.inference.images import check_model
from keras_fcn.inference.predict import check_options, errors_of_an_image, predict_image
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import as_calibration, fingerprint_of
from keras_fcn.inference.results import Results
from keras_fcn.inference.sources import check_outputs, find_jobs
from keras_fcn.lock import locked

# Of the options on which the numbers of a prediction depend.
DEFAULTS = {
    "engine": "keras",
    "precision": "float32",
    "test_time_augmentation": False,
    "scales": (1,),
    "calibration": None,
}
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
    output_format: str | Iterable[str] | None = None,
    gray: bool = False,
    objects: bool = False,
    white: float | None = None,
    max_pixels: int | None = None,
    **options,
) -> FolderResult:
    """Predict images, and write label maps and overlays.

    For `IMAGE.jpg` it writes `IMAGE.png`, a palette PNG whose pixel values are the
    classes, and `IMAGE_overlay.png`, the image with the classes laid over it; and one line
    into `summary.csv`, with the pixels of each class. An image that can't be read or
    predicted goes into `errors.csv`, and the rest goes on. The same call again does what is
    missing. Of a stack, a TIFF file of several images, each page is predicted, into TIFF
    files of as many pages; the tables name them `IMAGE#0`, `IMAGE#1` and so on.

    Args:
        model: Keras model, as `predict_image` takes it.
        source: an image, a folder with images, also deeper in it, a pattern as
            "slides/*/*.tif", or several of these.
        output: folder to write to, made if need be; it gets the folders of the source.
        output_format: what is written instead, one or more of "labels" (`IMAGE.png`),
            "overlay" (`IMAGE_overlay.png`), "objects", "outlines" and "probabilities"
            (`IMAGE_probabilities.tif`, float32); with a suffix ".png", ".tif" or ".npy" the
            file is of that kind, as "labels.tif". TIFF files are tiled and compressed; of
            a GeoTIFF they keep the georeference.
        gray: whether label maps are gray files of plain class numbers, as OpenCV and
            scikit-image read them, without colours.
        objects: whether also `IMAGE_objects.png` is written, of 16 bits, with the number of
            the object of each pixel, `IMAGE_outlines.png`, and a line for each object into
            `objects.csv`: number, class, area, centroid, box, mean probability and mean
            intensity.
        white, max_pixels: as in `keras_fcn.datasets.images.read_image`.
        **options: `tile_size`, `engine`, `precision`, `calibration`,
            `test_time_augmentation` and `scales` of `predict_image`.

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
    if "calibration" in options:
        options["calibration"] = as_calibration(options["calibration"], white, max_pixels)
    check_options(model, **options)
    check_reading(white, max_pixels)
    results = Results(model, output, parse_formats(output_format, objects), gray)
    channels = model.inputs[0].shape[-1]
    jobs = [
        dataclasses.replace(job, pages=count_pages(job.image, channels))
        for job in find_jobs(source, output)
    ]
    check_outputs(jobs, output, results.formats)
    output.mkdir(parents=True, exist_ok=True)
    run = {"weights": ledger.fingerprint(model), "gray": gray, "objects": objects}
    run |= DEFAULTS | {name: value for name, value in options.items() if name in DEFAULTS}
    run |= {"white": white, "calibration": fingerprint_of(run["calibration"])}
    run["output_format"] = [kind + suffix for kind, suffix in results.formats.items()]
    known = {name: job for job in jobs for name in job.names}

    def is_current(file, image, files):
        job = known.get(file)
        return job is None or (files.issuperset(job.names) and _is_current(job, image, results))

    with locked(output):
        for folder in {output / job.stem.parent for job in jobs} - {output}:
            remove_leftovers(folder)
        book = ledger.Ledger(output, run, *results.columns, is_current)
        read = functools.partial(_read, channels=channels, white=white, max_pixels=max_pixels)
        predict = functools.partial(predict_image, model, output=results.takes, **options)
        return _work(jobs, results, book, read, predict)


def _read(job, **options):
    """Return the images of a file: a list of one, or of the pages of a stack."""
    if job.pages is None:
        return [read_image(job.image, **options)]
    return list(read_stack(job.image, **options))


def _work(jobs, results, book, read, predict):
    """Predict what is missing, while others are read and written."""
    skipped = [job for job in jobs if book.done.issuperset(job.names)]
    todo = [job for job in jobs if not book.done.issuperset(job.names)]
    done, failed = {}, {}

    def set_aside(job, error):
        failed[str(job.image)] = str(error)
        book.fail(str(job.image), str(error))

    def settle(job, writing):
        try:
            done[str(job.image)] = writing.result()
        except OSError:  # what can't be written now can't be later
            raise
        except errors_of_an_image() as error:
            set_aside(job, error)

    with (
        concurrent.futures.ThreadPoolExecutor(1) as reading,
        concurrent.futures.ThreadPoolExecutor(1) as writing,
    ):
        files = [reading.submit(read, job) for job in todo[:AHEAD]]
        written = []
        for number, job in enumerate(track(todo, "Predicting")):
            if number + AHEAD < len(todo):
                files.append(reading.submit(read, todo[number + AHEAD]))
            try:
                images, files[number] = files[number].result(), None
                pages = _predict(images, predict)
            except errors_of_an_image() as error:
                set_aside(job, error)
                continue
            written.append((job, writing.submit(_write, results, book, job, pages)))
            while len(written) > (AHEAD if job.pages is None else 0):
                settle(*written.pop(0))
        for pair in written:
            settle(*pair)
    return FolderResult(done, [str(job.image) for job in skipped], failed)


def _predict(images, predict):
    """Return the pairs of images and predictions; of a stack each is made as it is written."""
    if len(images) == 1:
        return [(images[0], predict(images[0]))]
    return ((image, predict(image)) for image in images)


def _write(results, book, job, pages):
    lines, objects = results.write(job, pages)
    book.add(str(job.image.resolve()), lines, objects)
    return job.files(results.output, results.formats)


def _is_current(job, image, results):
    """Whether what is written is of this image, as it is now."""
    with contextlib.suppress(OSError):
        status = job.image.stat()
        # an older file may have been moved there, which keeps its time of modification
        time = max(status.st_mtime, status.st_ctime)
        same = str(job.image.resolve()) == image
        files = job.files(results.output, results.formats)
        return same and all(file.stat().st_mtime >= time for file in files)
    return False
