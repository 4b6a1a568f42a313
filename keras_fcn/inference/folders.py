"""Predictions of many images into a folder."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np

from keras_fcn.arguments import check_reading
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.stacks import count_pages, read_stack
from keras_fcn.inference import ledger
from keras_fcn.inference.addresses import copied, opened, place_of
from keras_fcn.inference.batches import batches_of, in_batches, is_enough, read_ahead, wanted
from keras_fcn.inference.formats import is_tiff, parse_formats
from keras_fcn.inference.images import check_model
from keras_fcn.inference.outputs import open_output
from keras_fcn.inference.predict import (
    check_options,
    errors_of_an_image,
    network_of,
    predict_images,
)
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are read, predicted and written: the same in every process of a run."""

    formats: dict
    gray: bool
    white: float | None
    max_pixels: int | None
    options: tuple  # of pairs, those of `predict_image`


class Pipeline:
    """What one process does: images are predicted, while others are read and written.

    Args:
        model: Keras model.
        results: writes the predictions into the folder of the output.
        output: of `keras_fcn.inference.outputs.open_output`.
        settings: how.
    """

    def __init__(self, model: keras.Model, results: Results, output, settings: Settings):
        self.model, self.channels = model, model.inputs[0].shape[-1]
        self.results, self.output, self.settings = results, output, settings
        options = dict(settings.options)
        self.predict = functools.partial(
            predict_images,
            model,
            network=network_of(model, **options),
            output=results.takes,
            **options,
        )

    def run(self, batches: list, book, progress: Callable = iter) -> tuple[dict, dict]:
        """Predict the images of jobs.

        Args:
            batches: lists of jobs, of `keras_fcn.inference.batches.batches_of`.
            book: what is told by `add` and `fail` of each, as a `Ledger`.
            progress: function that yields the jobs and shows how far it is.

        Returns:
            Of each image that is done the places of its predictions, and of others the error.

        Raises:
            OSError: when a prediction can't be written; none of the later ones could be.
        """
        done: dict = {}
        failed: dict = {}

        def set_aside(job, error):
            failed[str(job.image)] = str(error)
            book.fail(str(job.image), str(error))

        def settle(job, writing, _):
            try:
                done[str(job.image)] = writing.result()
            except OSError:  # what can't be written now can't be later
                raise
            except errors_of_an_image() as error:
                set_aside(job, error)

        with (
            contextlib.closing(self._predict(batches)) as predicted,
            concurrent.futures.ThreadPoolExecutor(1) as writing,
        ):
            written: list = []
            for job, (pages, pixels) in zip(progress(wanted(batches)), predicted, strict=True):
                if isinstance(pages, Exception):
                    set_aside(job, pages)
                    continue
                written.append((job, writing.submit(self._write, book, job, pages), pixels))
                while written and (job.pages or is_enough(pixels for *_, pixels in written[1:])):
                    settle(*written.pop(0))
            for entry in written:
                settle(*entry)
        return done, failed

    def _predict(self, batches):
        """Yield the pages and the pixels of the images that are wanted, or the error of one."""
        jobs = [job for batch in batches for job in batch]
        with contextlib.closing(read_ahead(self._read, jobs, _count_pixels)) as coming:
            for batch in batches:
                found = [_result(future) for future in itertools.islice(coming, len(batch))]
                for job, pages in zip(batch, self._predict_batch(found), strict=True):
                    if not job.done:
                        yield pages

    def _predict_batch(self, found):
        """Return the pages and the pixels of each image of a batch, or its error."""
        predicted: list = [(error, 0) for error in found]
        alike = collections.defaultdict(list)  # EXIF may turn one
        for number, images in enumerate(found):
            if isinstance(images, Exception):
                continue
            if len(images) == 1:
                alike[images[0].shape].append(number)
            else:
                predicted[number] = _predict_pages(images, self.predict), _count_pixels(images)
        for numbers in alike.values():
            images = [found[number][0] for number in numbers]
            for number, image, one in zip(numbers, images, self.predict(images), strict=True):
                pages = one if isinstance(one, Exception) else [(image, one)]
                predicted[number] = pages, _count_pixels([image])
        return predicted

    def _read(self, job):
        """Return the images of a file: a list of one, or of the pages of a stack."""
        how = {"channels": self.channels, "white": self.settings.white}
        how["max_pixels"] = self.settings.max_pixels
        with copied(job.image) as path:
            if job.pages is None:
                return [read_image(path, **how)]
            return list(read_stack(path, **how))

    def _write(self, book, job, pages):
        lines, objects = self.results.write(job, pages)
        self.output.take(job.file_names(self.results.formats))
        book.add(job.identity, lines, objects)
        return job.files(self.output.place, self.results.formats)


def _result(future):
    """Return what was read, or the error that one image may cause."""
    try:
        return future.result()
    except errors_of_an_image() as error:
        return error


def _count_pixels(images):
    return sum(math.prod(image.shape[:2]) for image in images)


def _predict_pages(images, predict):
    """Yield the pairs of images and predictions of a stack, each made as it is written."""
    for batch in in_batches(images, np.shape):
        for image, prediction in zip(batch, predict(batch), strict=True):
            if isinstance(prediction, Exception):
                raise prediction
            yield image, prediction


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
            from keras_fcn.inference import clusters

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
