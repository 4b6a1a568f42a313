"""What one process does of a run: images are read, predicted and written, at the same time."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import keras
import numpy as np

from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.stacks import read_stack
from keras_fcn.inference.addresses import copied
from keras_fcn.inference.batches import in_batches, is_enough, read_ahead, wanted
from keras_fcn.inference.predict import errors_of_an_image, network_of, predict_images
from keras_fcn.inference.results import Results


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
