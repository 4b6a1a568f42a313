"""What happens after each epoch of a run."""

import importlib.util
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_fcn.inference import predict_image
from keras_fcn.training.labels import load_split
from keras_fcn.training.run import CHECKPOINTS, MONITOR, best_epoch, read_log, trim_log
from keras_fcn.visualize import VOID_COLOR, paint, voc_palette, write_png

PICTURED = 3  # validation images
PANEL = 256  # largest side of a pictured image, pixels


def make_callbacks(recipe, output, labels):
    """Return the callbacks in their order: the backup last, so that it has seen all others."""
    rows = read_log(output)
    trim_log(output, rows)
    best = best_epoch(rows)
    threshold = None if best is None else best[0]
    better = {"monitor": MONITOR, "mode": "max"}
    besides = {name: output / f".{name}" for name in CHECKPOINTS}
    for path in besides.values():
        path.unlink(missing_ok=True)  # of an interrupted save

    pictured = load_split(recipe, recipe.validation).take(PICTURED).as_numpy_iterator()
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        EpochSeconds(),
        keras.callbacks.CSVLogger(output / "log.csv", append=True),
        keras.callbacks.ModelCheckpoint(
            besides["best.keras"], save_best_only=True, initial_value_threshold=threshold, **better
        ),
        keras.callbacks.ModelCheckpoint(besides["last.keras"]),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: _rename(besides, output)),
        ImageGrid(list(pictured), output / "pictures", labels.num_classes, labels.ignore),
    ]
    if importlib.util.find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(output / "tensorboard"))
    if recipe.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                patience=recipe.early_stopping, baseline=threshold, **better
            )
        )
    callbacks.append(
        keras.callbacks.BackupAndRestore(
            output / "backup", double_checkpoint=True, delete_checkpoint=False
        )
    )
    return callbacks


def _rename(besides, output):
    """Give checkpoints that are whole their names."""
    for name, path in besides.items():
        if path.exists():
            path.replace(output / name)


class EpochSeconds(keras.callbacks.Callback):
    """Adds to the logs of an epoch the `seconds` that it took, validation included."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.begin


class ImageGrid(keras.callbacks.Callback):
    """Draws input, truth and prediction of a few images after each epoch.

    The files are `epoch_0001.png` and so on, each written beside its place and then
    renamed. A row is an image, scaled down to 256 pixels where it is larger.

    Args:
        pairs: list of images, uint8 `(height, width, channels)`, and their label maps,
            integer `(height, width)`.
        folder: folder of the pictures.
        num_classes: number of classes, drawn in the colours of PASCAL VOC.
        ignore: the label of void pixels, or None.

    Example:

    >>> import numpy as np
    >>> pairs = [(np.zeros((32, 32, 3), "uint8"), np.zeros((32, 32), "int32"))]
    >>> callback = ImageGrid(pairs, "pictures", num_classes=2)
    """

    def __init__(self, pairs, folder, num_classes, ignore=None):
        super().__init__()
        self.pairs = pairs
        self.folder = Path(folder)
        self.palette = voc_palette(num_classes)
        self.ignore = ignore

    def on_epoch_end(self, epoch, logs=None):
        rows = []
        for image, truth in self.pairs:
            prediction = predict_image(self.model, image).argmax(-1)
            pixels = np.broadcast_to(image, (*image.shape[:2], 3))
            rows.append([pixels, self._paint(truth), self._paint(prediction)])
        self.folder.mkdir(exist_ok=True)
        write_png(self.folder / f"epoch_{epoch + 1:04d}.png", _draw_grid(rows))

    def _paint(self, label_map):
        return paint(label_map, self.palette, self.ignore, VOID_COLOR)


def _draw_grid(rows, gap=4):
    """Return a picture of rows of uint8 arrays (H, W, 3); those of a row have one size."""
    panels = [[_shrink(Image.fromarray(array)) for array in row] for row in rows]
    width = max(sum(panel.width + gap for panel in row) for row in panels) - gap
    height = sum(row[0].height + gap for row in panels) - gap
    picture = Image.new("RGB", (width, height), "white")
    top = 0
    for row in panels:
        for column, panel in enumerate(row):
            picture.paste(panel, (column * (panel.width + gap), top))
        top += row[0].height + gap
    return picture


def _shrink(picture):
    """Scale a picture down to PANEL pixels, by the nearest pixel: colours stay classes."""
    scale = min(1, PANEL / max(picture.size))
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.NEAREST)
