"""What happens after each step and each epoch of a run."""

import errno
import importlib.util
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_fcn import signals
from keras_fcn.atomic import telling_full
from keras_fcn.classes import Classes, unique
from keras_fcn.inference import predict_image
from keras_fcn.label_maps import to_labels
from keras_fcn.training.log import MONITOR, best_epoch, write_log
from keras_fcn.training.run import keep_best, save_state, steps_of
from keras_fcn.visualize import VOID_COLOR, paint, write_png

PANEL = 256  # largest side of a pictured image, pixels
SCORE = MONITOR.removeprefix("val_")  # as validation has it
REPORT = 30  # seconds between two lines of progress in a file


class DivergenceError(ValueError):
    """The loss or the weights are no longer finite."""


class Keeper(keras.callbacks.Callback):
    """Writes the row of an epoch, then its state; stops for a signal or a loss that is no number.

    Args:
        output: folder of the run.
        metric: the `SegmentationMetrics` of the model, for the IoU of each class.
        names: names of the classes.
        patience: epochs without a better mean IoU after which to stop, or None.
        per_class: whether the line of an epoch shows the IoU of each class.
    """

    def __init__(self, output, metric, names, patience=None, per_class=False):
        super().__init__()
        self.output, self.rows = output, []  # the log
        self.metric, self.names = metric, names
        self.patience, self.per_class = patience, per_class
        self.signal = None  # the one that came
        self.begin = time.perf_counter()

    @property
    def is_done(self):
        """Whether the best epoch is too long ago."""
        best = best_epoch(self.rows)
        return bool(self.patience and best and len(self.rows) - best[1] > self.patience)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begin = epoch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            self._raise(f"The loss became {logs['loss']}")
        self._heed_signal()

    def on_test_begin(self, logs=None):
        self._check_weights()  # before pictures are drawn by them

    def on_test_batch_end(self, batch, logs=None):
        self._heed_signal()

    def on_test_end(self, logs=None):
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs[SCORE])):
            self._raise(f"The loss of the validation images became {logs['loss']}")

    def on_epoch_end(self, epoch, logs=None):
        self._check_weights()
        logs["seconds"] = time.perf_counter() - self.begin
        scores = self.per_class_iou()
        self.rows.append({"epoch": epoch, **logs, **scores})
        if self.per_class:
            logs.update(scores)
        write_log(self.output, self.rows)
        save_state(self.model, self.output)
        if best_epoch(self.rows)[1] == epoch:
            keep_best(self.output)
        self.model.stop_training = self.is_done

    def per_class_iou(self):
        """Return {"val_iou_NAME": IoU}, NaN for a class that occurs nowhere."""
        names = unique(f"val_iou_{name.replace(',', ' ')}" for name in self.names)
        return dict(zip(names, self.metric.per_class_iou().tolist(), strict=True))

    def _check_weights(self):
        variables = [*self.model.variables, *self.model.optimizer.variables]
        if not all(_is_finite(variable) for variable in variables):
            self._raise("The weights became infinite or NaN")

    def _raise(self, what):
        step = steps_of(self.model)
        raise DivergenceError(
            f"Loss and weights should stay finite. {what} at step {step}, in epoch "
            f"{self.epoch + 1}, and the training stopped. Start again with a lower learning rate "
            f"and another output folder{self._describe_best()}."
        )

    def _describe_best(self):
        best = best_epoch(self.rows)
        if best is None:
            return ""
        return f"; the best epoch before it, {best[1] + 1}, is '{self.output / 'best.keras'}'"

    def _heed_signal(self):
        if self.signal is not None:
            self._save()
            self._end()

    def _save(self):
        self._check_weights()
        save_state(self.model, self.output)

    def _end(self):
        """End for the signal that came; the state is saved."""
        step = steps_of(self.model)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        line = signals.LINES[self.signal]
        signals.tell(f"{line} after step {step}; the same command goes on from it")
        raise SystemExit(signals.OF_SIGNALS + self.signal)

    def __enter__(self):
        """Heed what ends a process after a step; a second Ctrl-C is heeded at once."""
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = signals.install(self._receive)
        return self

    def __exit__(self, kind, error, _):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if isinstance(error, OSError) and error.errno == errno.EIO and self._is_hung_up():
            self.signal, kind = signals.HANG_UP, None  # Keras could not draw its bar, after a step
            self._save()
        if self.signal is not None and kind is None:  # it came after the last step
            self._end()

    def _is_hung_up(self):
        """Whether the terminal is closed; its signal may be on its way."""
        return signals.leave_terminal() or self.signal == signals.HANG_UP

    def _receive(self, number, _frame):
        self.signal = number
        if number == signals.HANG_UP:
            signals.leave_terminal()
        elif number == signal.SIGINT:
            signal.signal(signal.SIGINT, self.handlers[signal.SIGINT])


def _is_finite(variable):
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    return bool(keras.ops.all(keras.ops.isfinite(keras.ops.copy(variable))))


class Progress(keras.callbacks.Callback):
    """Writes a line each half minute, where the output is a file and no bar is drawn."""

    def __init__(self, epochs, seconds=REPORT):
        super().__init__()
        self.epochs, self.seconds = epochs, seconds

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.told = epoch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if time.perf_counter() - self.told > self.seconds:
            self.told = time.perf_counter()
            print(
                f"epoch {self.epoch + 1}/{self.epochs}, step {batch + 1}/{self.params['steps']}: "
                f"loss {logs['loss']:.4f}",
                flush=True,
            )


class ImageGrid(keras.callbacks.Callback):
    """Draws input, truth and prediction of a few images after each epoch.

    The files are `epoch_0001.png` and so on, each written beside its place and then
    renamed. A row is an image, scaled down to 256 pixels where it is larger.

    Args:
        pairs: list of images, uint8 `(height, width, channels)`, and their label maps,
            integer `(height, width)`.
        folder: folder of the pictures.
        classes: `keras_fcn.Classes`.

    Example:

    >>> import numpy as np
    >>> from keras_fcn.classes import Classes
    >>> pairs = [(np.zeros((32, 32, 3), "uint8"), np.zeros((32, 32), "int32"))]
    >>> callback = ImageGrid(pairs, "pictures", Classes.default(2))
    """

    def __init__(
        self,
        pairs: Sequence[tuple[np.ndarray, np.ndarray]],
        folder: str | os.PathLike,
        classes: Classes,
    ):
        super().__init__()
        self.pairs = pairs
        self.folder = Path(folder)
        self.classes = classes

    def on_epoch_end(self, epoch, logs=None):
        rows = []
        for image, truth in self.pairs:
            prediction = to_labels(predict_image(self.model, image))
            pixels = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)
            rows.append([pixels, self._paint(truth), self._paint(prediction)])
        self.folder.mkdir(exist_ok=True)
        write_png(self.folder / f"epoch_{epoch + 1:04d}.png", _draw_grid(rows))

    def _paint(self, label_map):
        return paint(label_map, self.classes.palette, self.classes.ignore, VOID_COLOR)


def make_board(output, keeper):
    """Return a list of the callback for TensorBoard, where that is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return []

    folder = output / "tensorboard"

    class Board(keras.callbacks.TensorBoard):
        def set_model(self, model):
            with telling_full(output, folder):
                super().set_model(model)

        def on_epoch_end(self, epoch, logs=None):
            with telling_full(output, folder):
                super().on_epoch_end(epoch, {**logs, **keeper.per_class_iou()})

    return [Board(folder)]


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
