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
from keras_fcn.datasets.stacks import count_pages
from keras_fcn.inference import clusters, ledger
from keras_fcn.inference.addresses import opened, place_of
from keras_fcn.inference.batches import batches_of, wanted
from keras_fcn.inference.formats import is_tiff, parse_formats
from keras_fcn.inference.images import check_model
from keras_fcn.inference.outputs import open_output
from keras_fcn.inference.pipeline import Pipeline, Settings
from keras_fcn.inference.predict import check_options
from keras_fcn.inference.progress import track
from keras_fcn.inference.quantize import as_calibration, fingerprint_of
from keras_fcn.inference.results import OF_OBJECTS, Results
from keras_fcn.inference.sources import check_outputs, find_jobs
from keras_fcn.remedies import spell

# Of the options on which the numbers of a prediction depend.
DEFAULTS = {
    "engine": "keras",
    "precision": "float32",
    "test_time_augmentation": False,
    "scales": (1,),
    "calibration": None,
}
AT_ONCE = 32  # addresses of which the beginning is read


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
    ray: bool | str | None = None,
    workers: int | None = None,
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
            "slides/*/*.tif", or several of these; each also at an address of fsspec, as
            "s3://bucket/photos", with the package for it.
        output: folder to write to, made if need be, or an address; it gets the folders of
            the source.
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
        ray: True for several processes on this machine, by Ray; "HOST:PORT", or "auto", for
            those of a cluster, on whose machines this package is installed and the paths or
            addresses lead to the same files. What is written is the same.
        workers: how many processes; each loads the model. By default one for each GPU, or
            where there is none for every two processor cores.
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
        ImportError: when the package of an address, or Ray, is missing.
        ConnectionError: when an address or a cluster does not answer.

    Example:

    >>> import keras_fcn
    >>> model = keras_fcn.from_pretrained("unet_camvid")
    >>> keras_fcn.predict_folder(model, "photos", "predictions")  # doctest: +SKIP
    """
    output = place_of(output)
    if workers is not None and not ray:
        raise ValueError(
            f"{spell('workers')} is for {spell('ray')}. Received: {spell('workers', workers)} "
            "alone. Pass both or leave it out."
        )
    check_model(model)
    if "calibration" in options:
        options["calibration"] = as_calibration(options["calibration"], white, max_pixels)
    formats = parse_formats(output_format, objects)
    check_options(model, takes="objects" if formats.keys() & OF_OBJECTS else "labels", **options)
    check_reading(white, max_pixels)
    settings = Settings(formats, gray, white, max_pixels, tuple(options.items()))
    with open_output(output) as place:
        results = Results(model, place.folder, settings.formats, gray)
        jobs = _count_pages(find_jobs(source, output), model.inputs[0].shape[-1])
        check_outputs(jobs, output, results.formats, place.is_foreign)
        run = {"weights": ledger.fingerprint(model), "gray": gray, "objects": objects}
        run |= DEFAULTS | {name: value for name, value in options.items() if name in DEFAULTS}
        run |= {"white": white, "calibration": fingerprint_of(run["calibration"])}
        run["output_format"] = [kind + suffix for kind, suffix in results.formats.items()]
        with place.locked(jobs):
            is_current = _currency(jobs, results, place)
            book = ledger.Ledger(place.folder, run, *results.columns, is_current, output)
            return _do(jobs, book, Pipeline(model, results, place, settings), ray, workers)


def _do(jobs, book, pipeline, ray, workers):
    """Predict what is missing, here or by Ray."""
    jobs = [dataclasses.replace(job, done=book.done.issuperset(job.names)) for job in jobs]
    # with a missing image those of its batch are predicted again, or it would get other scores
    todo = [batch for batch in batches_of(jobs) if wanted([batch])]
    pipeline.output.sync()  # the record, which says that the files to come are this package's
    try:
        if not ray:
            done, failed = pipeline.run(todo, book, functools.partial(_follow, pipeline.output))
        else:
            done, failed = clusters.run(pipeline, todo, book, ray, workers)
        images = [str(job.image) for job in jobs]
        book.sort(images, [name for job in jobs for name in job.names])
    except BaseException:
        with contextlib.suppress(OSError):  # the error is told that came first
            pipeline.output.sync()
        raise
    pipeline.output.sync()
    done, failed = ({x: found[x] for x in images if x in found} for found in (done, failed))
    return FolderResult(done, [str(job.image) for job in jobs if job.done], failed)


def _follow(output, jobs):
    """Yield the jobs, show how far it is, and copy the tables from time to time."""
    for job in track(jobs, "Predicting"):
        yield job
        output.sync(now=False)


def _count_pages(jobs, channels):
    """Return the jobs with the pages of stacks; many addresses are looked into at once."""

    def count(job):
        if isinstance(job.image, Path):
            return dataclasses.replace(job, pages=count_pages(job.image, channels))
        if not is_tiff(job.image):
            return job
        with contextlib.suppress(OSError), opened(job.image) as file:
            return dataclasses.replace(job, pages=count_pages(job.image, channels, file))
        return job  # who reads it tells what is wrong

    if all(isinstance(job.image, Path) for job in jobs):
        return list(map(count, jobs))
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(count, jobs))


def _currency(jobs, results, output):
    """Return the function that says of a line of the summary whether it is of an image as it is."""
    known = {name: job for job in jobs for name in job.names}

    def is_current(file, image, files):
        job = known.get(file)
        if job is None:
            return True
        if job.identity != image or not files.issuperset(job.names):
            return False
        with contextlib.suppress(OSError):
            changed = _changed(job)
            written = job.files(output.place, results.formats)
            return not any(output.is_older(file, changed) for file in written)
        return False

    return is_current


def _changed(job):
    """Return when an image was changed, or moved to where it is, in seconds."""
    if job.changed is not None:
        return job.changed
    status = job.image.stat()
    # an older file may have been moved there, which keeps its time of modification
    return max(status.st_mtime, status.st_ctime)
