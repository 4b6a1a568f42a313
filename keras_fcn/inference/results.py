"""The files that are written of predictions."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from keras_fcn.catalogue import classes_of, file_of
from keras_fcn.inference.formats import geo_tags, writing
from keras_fcn.inference.objects import ObjectSettings, find_objects
from keras_fcn.inference.sources import Job
from keras_fcn.inference.tiles import example_size
from keras_fcn.label_maps import to_labels
from keras_fcn.remedies import choose, spell

MOST = 65535  # objects in a map of 16 bits
OF_OBJECTS = {"objects", "outlines"}  # formats for which objects are found
OBJECT_COLUMNS = (
    "number", "class", "area", "row", "column", "top", "left", "bottom", "right",
    "mean_probability", "mean_intensity",
)  # fmt: skip


class Results:
    """Writes what is wanted of images.

    Args:
        model: Keras model that predicts.
        output: folder to write to.
        formats: {kind: suffix}, of `keras_fcn.inference.formats.parse_formats`.
        gray: whether label maps have no colours.

    Attributes:
        columns: names of the columns of the two tables.
        takes: what it takes, as `output` of `predict_image`: of labels alone the
            probabilities of a large image are never held.

    Raises:
        ValueError: for a model of more classes than a file of 8 bits holds, and for objects
            of one whose maps have not the size of the image.
    """

    def __init__(self, model: keras.Model, output: Path, formats: dict[str, str], gray: bool):
        self.model = model
        self.output = output
        self.formats = formats
        self.classes = classes_of(model)
        if len(self.classes) > 256:
            raise ValueError(
                "A label map has 8 bits, so it holds 256 classes at most. Received: a model of "
                f"{len(self.classes)}. "
                + choose(
                    "Call `keras_fcn.predict_image`.",
                    "There is no command for more: in Python call `keras_fcn.predict_image("
                    f"keras_fcn.load_model({file_of(model)!r}), image)`.",
                )
            )
        self.palette = None if gray else self.classes.palette
        objects = formats.keys() & OF_OBJECTS
        self.settings = ObjectSettings.of(model) if objects else None
        if objects and (example := example_size(model)):
            _check_size(*reversed(example))
        self.takes = "probabilities" if objects or "probabilities" in formats else "labels"
        self.columns = (
            ("height", "width", *self.classes.names),
            OBJECT_COLUMNS if objects else (),
        )

    def write(
        self, job: Job, pages: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[list[list], list[list]]:
        """Write the files of an image or of a stack.

        Args:
            job: the image.
            pages: image `(height, width, channels)` and prediction of each, the latter as
                `takes` says.

        Returns:
            The lines of the summary, and of the objects.

        Raises:
            ValueError: for more objects than the file holds, and what a prediction of a
                later page raises; no file is written then.
            FileNotFoundError: when the output folder is gone.
        """
        lines, objects = [], []
        files = [self.output / name for name in job.file_names(self.formats)]
        self._check_output()
        files[0].parent.mkdir(parents=True, exist_ok=True)
        tags = geo_tags(job.image) if any(".tif" in file.suffix for file in files) else []
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(writing(file, job.pages)) for file in files]
            for name, (image, prediction) in zip(job.names, pages, strict=True):
                made, values, found = self._make(image, prediction)
                for kind, write in zip(self.formats, writers, strict=True):
                    array = made[kind]
                    there = tags if array.shape[:2] == image.shape[:2] else ()
                    colors = self.palette if kind == "labels" else None
                    write(array, palette=colors, tags=there)
                lines.append([name, *values])
                objects += [[name, *line] for line in found]
        return lines, objects

    def _check_output(self):
        """Raise where the folder is gone, as a lost share; what is below it is another disk."""
        if not self.output.is_dir():
            raise FileNotFoundError(
                "The output folder should stay while images are predicted. Received: no "
                f"'{self.output}' any more. Bring it back, or its disk, and run the same command "
                "again."
            )

    def _make(self, image, prediction):
        """Return {kind: array}, the values of the summary, and the lines of the objects."""
        from keras_fcn.inference.pictures import draw_classes, draw_outlines, to_bytes

        labels = to_labels(prediction) if self.takes == "probabilities" else prediction
        if self.settings is not None:
            _check_size(labels.shape, image.shape[:2])
        made = {"labels": labels.astype("uint8"), "probabilities": prediction}
        if "overlay" in self.formats:
            picture = draw_classes(self.model, to_bytes(image), labels, self.classes)
            made["overlay"] = np.asarray(picture)
        lines = []
        if self.settings is not None:
            from keras_fcn.inference.measure import measure_objects

            objects = find_objects(prediction, self.settings)
            lines = measure_objects(objects, prediction, image, self.classes.names, self.settings)
            made["objects"] = objects.astype("uint16" if objects.max() <= MOST else "uint32")
            if "outlines" in self.formats:
                made["outlines"] = np.asarray(draw_outlines(to_bytes(image), objects))
        return made, [*labels.shape, *_count(labels, len(self.classes))], lines


def _check_size(made, image):
    if tuple(made) != tuple(image):
        raise ValueError(
            "Objects are measured in a map of the image's size. Received: a model that makes a map "
            f"of {made[0]}x{made[1]} of {image[0]}x{image[1]} pixels. Leave {spell('objects')} "
            f"out, and objects and outlines of {spell('output_format')}."
        )


def _count(labels, classes):
    """Return the pixels of each class, counted row by row: NumPy counts in a copy of 64 bits."""
    total = np.zeros(classes, "int64")
    for row in labels:
        total += np.bincount(row, minlength=classes)
    return total.tolist()
