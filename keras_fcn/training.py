"""Train a network on a data set: a recipe, a run that can be resumed, and its record.

A run writes into its output folder

    training.json        the recipe, versions, seed and command; the result when it is done
    log.csv              loss, scores and seconds of each epoch, the first is 0
    best.keras           the epoch with the best mean IoU on the validation images
    last.keras           the last epoch
    pictures/            input, truth and prediction of a few validation images, for each epoch
    tensorboard/         the same numbers, where `tensorboard` is installed
    backup/              where the run goes on after an interruption; removed when it is done
    model.keras          the best model, without its optimizer, when the run is done
"""

import collections
import contextlib
import csv
import dataclasses
import importlib.util
import itertools
import json
import math
import shlex
import shutil
import sys
import time
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
from PIL import Image

from keras_fcn.arguments import check_choice, check_positive_integer
from keras_fcn.cards import pretrained
from keras_fcn.catalogue import from_pretrained
from keras_fcn.datasets import SOURCES, Augmentation, load
from keras_fcn.inference import predict_image
from keras_fcn.losses import WeightedCrossentropy
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.optimizers import Muon
from keras_fcn.unet import UPSAMPLINGS
from keras_fcn.visualize import VOID_COLOR, paint, voc_palette, write_png

FACTORIES = {
    "unet": "UNet",
    "fcn32s": "FCN32s",
    "fcn16s": "FCN16s",
    "fcn8s": "FCN8s",
    "fcn8s_at_once": "FCN8sAtOnce",
}
OPTIMIZERS = ("adamw", "muon", "sgd")
CLASS_WEIGHTS = ("log", "none")
MONITOR = "val_mean_iou"
CHECKPOINTS = ("best.keras", "last.keras")
AUGMENTATION = Augmentation(flip="horizontal", scale=0.25, contrast=0.2, brightness=0.1)
MOMENTUM = 0.99  # of SGD, in both papers
WARM_UP = 0.05  # of all steps
PICTURED = 3  # validation images
PANEL = 256  # largest side of a pictured image, pixels


@dataclasses.dataclass(frozen=True)
class Task:
    """What to learn from: the data, the batches made of it, and how many.

    Args:
        data: a folder of images and masks, or a name, as in `keras_fcn.datasets.load`.
        split, validation: splits to train and to validate on, as in `load`.
        num_classes: number of classes; by default that of the data set, for a folder
            the largest label of the training masks plus one.
        ignore: the label of void pixels; by default that of the data set, 255 for
            folders.
        values, colors: what the pixels of the masks stand for, for folders, as in
            `keras_fcn.datasets.files.read_mask`.
        crop_size: side of the random crops to train on. Validation is on whole images.
        batch_size: images in a batch, over all devices.
        augment: an `Augmentation`, or None.
        epochs: how often to validate and save.
        steps: batches in an epoch; by default as many as give each image once.
        seed: of the weights, the order of the images, crops and augmentation.

    Raises:
        ValueError: for an argument out of its range.

    Example:

    >>> Task("shapes/cells", crop_size=96).parameters["crop_size"]
    96
    """

    data: str
    split: str = "train"
    validation: str = "val"
    num_classes: int | None = None
    ignore: int | None = None
    values: dict | None = None
    colors: dict | None = None
    crop_size: int = 256
    batch_size: int = 4
    augment: Augmentation | None = AUGMENTATION
    epochs: int = 50
    steps: int | None = None
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "data", str(self.data))
        for name in ("num_classes", "crop_size", "batch_size", "epochs", "steps"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))

    @property
    def parameters(self):
        """A dict of all that a run depends on, as JSON stores it."""
        parameters = dataclasses.asdict(self)
        if Path(self.data).exists():
            parameters["data"] = str(Path(self.data).resolve())
        for name in ("values", "colors"):  # JSON has no mapping of numbers or colours
            if parameters[name] is not None:
                parameters[name] = sorted(parameters[name].items())
        return json.loads(json.dumps(parameters))


@dataclasses.dataclass(frozen=True)
class Recipe(Task):
    """What is trained, on what, and how.

    Args:
        data, split, validation, num_classes, ignore, values, colors, crop_size,
            batch_size, augment, epochs, steps, seed: see `Task`.
        model: a key of `FACTORIES`; by default `"unet"`, or the network of the
            catalogue's weights.
        filters, encoder, dropout, upsampling: arguments of `UNet`; those that are None
            have its defaults.
        fc_filters: argument of the FCNs.
        batch_norm: argument of both.
        weights: a name of the catalogue, from which to fine-tune, or the argument
            `weights` of the factory.
        class_weights: `"log"`, see `log_class_weights`, or `"none"`.
        optimizer: `"adamw"`, `"muon"` (`keras_fcn.optimizers.Muon`) or `"sgd"`.
        learning_rate: the highest: it rises linearly over a twentieth of the steps and
            falls along a cosine. By default 1e-3 for a U-Net from scratch, else 1e-4.
        momentum: of SGD; by default 0.99, as in both papers.
        early_stopping: epochs without a better mean IoU after which to stop, counted
            anew after an interruption; by default it goes on to the end.
        mixed_precision: whether to compute in bfloat16, with float32 weights and scores.
        data_parallel: whether to share each batch among all devices.

    Raises:
        ValueError: for an argument out of its range or that does not go with the model.

    Example:

    >>> recipe = Recipe("shapes/cells", filters=(16, 32, 64), epochs=20, crop_size=96)
    >>> recipe.learning_rate
    0.001
    """

    model: str | None = None
    filters: tuple | None = None
    encoder: str | None = None
    batch_norm: bool = False
    dropout: float | None = None
    upsampling: str | None = None
    fc_filters: int | None = None
    weights: str | None = None
    class_weights: str = "log"
    optimizer: str = "adamw"
    learning_rate: float | None = None
    momentum: float | None = None
    early_stopping: int | None = None
    mixed_precision: bool = False
    data_parallel: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.early_stopping is not None:
            check_positive_integer("early_stopping", self.early_stopping)
        check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        self._check_architecture()
        if self.weights not in pretrained() and self.model is None:
            object.__setattr__(self, "model", "unet")
        self._check_optimizer()

    def _check_architecture(self):
        """Raise for arguments that do not go with the model."""
        if self.upsampling is not None:
            check_choice("upsampling", self.upsampling, UPSAMPLINGS)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(
                f"`dropout` should be from 0 to below 1. Received: dropout={self.dropout}"
            )
        unet = ("filters", "encoder", "dropout", "upsampling")
        fcn = ("fc_filters",)
        if self.weights in pretrained():
            owner = f"the weights {self.weights!r}"
            foreign = ("model", *unet, *fcn, "batch_norm")
        else:
            owner = self.model or "unet"
            check_choice("model", owner, tuple(FACTORIES))
            foreign = fcn if owner == "unet" else unet
        # a dropout of 0 is given, and equals False
        if given := [name for name in foreign if not _is_absent(getattr(self, name))]:
            raise ValueError(
                f"Each network has arguments of its own. Received: {', '.join(given)} together "
                f"with {owner}, which {'has' if len(given) == 1 else 'have'} no place there. "
                "Leave it out."
            )

    def _check_optimizer(self):
        """Raise for settings that no optimizer has; fill in the defaults."""
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.learning_rate is None:
            fresh_unet = self.model == "unet" and self.weights is None
            object.__setattr__(self, "learning_rate", 1e-3 if fresh_unet else 1e-4)
        if not self.learning_rate > 0:
            raise ValueError(
                f"`learning_rate` should be above 0. Received: learning_rate={self.learning_rate}"
            )
        if self.optimizer == "sgd" and self.momentum is None:
            object.__setattr__(self, "momentum", MOMENTUM)
        if self.momentum is not None and (self.optimizer != "sgd" or not 0 <= self.momentum < 1):
            raise ValueError(
                '`momentum` should be from 0 to below 1, and goes with `optimizer="sgd"`. '
                f"Received: momentum={self.momentum}, optimizer={self.optimizer!r}"
            )


def _is_absent(value):
    return value is None or value is False


def train(recipe, output):
    """Train a model as a recipe says; go on where an interrupted run of it stopped.

    After an interruption, `kill -9` included, the same call goes on with the first
    epoch that was not finished, in another order of the images than the run would
    have had. The log then holds each epoch once.

    Args:
        recipe: `Recipe`.
        output: folder of the run, new or empty, or that of the interrupted run.

    Returns:
        Dict of the model's `file`, its `mean_iou` on the validation images, whole, its
        `epoch`, counted from 1, and the `seconds` that all epochs took.

    Raises:
        FileExistsError: when `output` holds a finished run, or files of something else.
        ValueError: when it holds a run of another recipe, when data and recipe do not
            fit, or when the loss is no longer a number.
        FileNotFoundError: when the data does not exist.

    Example:

    >>> recipe = Recipe("shapes/cells", filters=(16, 32, 64), epochs=20, crop_size=96)
    >>> train(recipe, "runs/cells")["file"]  # doctest: +SKIP
    'runs/cells/model.keras'
    """
    output = Path(output)
    resumed = check_output(output, recipe.parameters)
    _mend_backup(output / "backup")
    keras.utils.set_random_seed(recipe.seed)
    labels = count_labels(recipe)
    with _precision(recipe.mixed_precision), _devices(recipe.data_parallel) as devices:
        _check_batch_size(recipe.batch_size, devices)
        model = _build(recipe, labels.num_classes, labels.channels)
        steps = count_steps(recipe, labels)
        weights = log_class_weights(labels.training) if recipe.class_weights == "log" else None
        _compile(model, recipe, steps, weights, labels.ignore)
        if not resumed:
            output.mkdir(parents=True, exist_ok=True)
            record = {**describe_run(recipe, labels), "class_weights": weights, "steps": steps}
            write_json(output / "training.json", record)
        history = model.fit(
            training_set(recipe, _completed_epochs(output)),
            validation_data=validation_set(recipe, labels.ignore, devices),
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            callbacks=_callbacks(recipe, output, labels),
            shuffle=False,  # the training set is shuffled
            verbose=1 if sys.stdout.isatty() else 2,
        )
    _check_loss(history.history.get("loss", []), output)
    return _finish(output)


# From a search


def tuned_arguments(folder):
    """Return the arguments of `Recipe` for the best trial of a search.

    They are its data, crops, batches and augmentation, the network, the optimizer and
    the class weights; how long to train is not among them.

    Args:
        folder: the output folder of `keras_fcn.tuner.tune`.

    Returns:
        Dict of keyword arguments of `Recipe`.

    Raises:
        FileNotFoundError: when the folder holds no search.
        ValueError: when its search is not done.

    Example:

    >>> Recipe(**tuned_arguments("runs/search"), epochs=100)  # doctest: +SKIP
    """
    path = Path(folder) / "tuning.json"
    if not path.exists():
        raise FileNotFoundError(
            f"A search should have left '{path}', and there is no such file. Pass the output "
            "folder of `keras-fcn tune`."
        )
    record = json.loads(path.read_text())
    if "recipe" not in record:
        raise ValueError(
            f"The search should be done. Received: '{folder}', where it was interrupted. Run the "
            f"same `keras-fcn tune` again, and it goes on: {record['command']}"
        )
    arguments = record["recipe"]
    if arguments["augment"] is not None:
        arguments["augment"] = Augmentation(**arguments["augment"])
    if arguments["values"] is not None:
        arguments["values"] = dict(arguments["values"])
    if arguments["colors"] is not None:
        arguments["colors"] = {tuple(color): label for color, label in arguments["colors"]}
    return arguments


# The output folder


def check_output(output, parameters, record="training.json", result="model.keras"):
    """Return whether the output folder holds an interrupted run of these parameters.

    Args:
        output: path of the folder.
        parameters: dict of what the run depends on, as JSON stores it.
        record: name of the file that holds them from the beginning of a run.
        result: name of the file that a finished run has written.

    Raises:
        FileExistsError: when it holds a finished run, or files of something else.
        ValueError: when it holds a run of other parameters.
    """
    if (output / result).exists():
        raise FileExistsError(
            f"The output folder should hold no finished run. Received: '{output}', with "
            f"{result}. Choose another folder."
        )
    record = output / record
    if not record.exists():
        if output.exists() and any(output.iterdir()):
            raise FileExistsError(
                f"The output folder should be new or empty, or that of an interrupted run. "
                f"Received: '{output}', which holds other files. Choose another folder."
            )
        return False
    recorded = json.loads(record.read_text())["parameters"]
    differing = [
        f"{name}={parameters.get(name)!r} instead of {recorded.get(name)!r}"
        for name in {**recorded, **parameters}
        if parameters.get(name) != recorded.get(name)
    ]
    if differing:
        raise ValueError(
            f"An interrupted run goes on with the parameters that it began with, in '{record}'. "
            f"Received: {', '.join(differing)}. Pass the same, or choose another output folder."
        )
    return True


def describe_run(task, labels):
    """Return what is written beside the weights, so that the run can be repeated: a dict."""
    import keras_fcn

    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "parameters": task.parameters,
        "seed": task.seed,
        "versions": {
            "keras_fcn": keras_fcn.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": sys.version.split()[0],
        },
        "images": labels.images,
        "classes": labels.classes,
        "ignore": labels.ignore,
        "pixels": labels.training.tolist(),  # of each class
    }


def write_json(path, record):
    """Write a record beside its path, then rename it."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.replace(path)


def _completed_epochs(output):
    """Return the epochs that the backup holds: those that need not be trained again."""
    metadata = output / "backup" / "training_metadata.json"
    return json.loads(metadata.read_text())["epoch"] if metadata.exists() else 0


def _mend_backup(backup):
    """Go back to the copy of a backup that was cut short in writing.

    Keras does so for the weights only, and after the log has been trimmed.
    """
    metadata, weights = backup / "training_metadata.json", backup / "latest.weights.h5"
    if metadata.exists() and not (metadata.read_text() and _is_readable(weights)):
        for path in (metadata, weights):
            copy = path.with_name(f"{path.name}.bkp")
            if copy.exists():
                shutil.copy(copy, path)
            else:
                path.unlink(missing_ok=True)
    if not metadata.exists():  # no epoch is whole
        shutil.rmtree(backup, ignore_errors=True)


def _is_readable(weights):
    try:
        h5py.File(weights).close()
    except OSError:
        return False
    return True


def _read_log(output):
    """Return the rows of the log, of the epochs in the backup only."""
    path = output / "log.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(itertools.islice(csv.DictReader(file), _completed_epochs(output)))


def _trim_log(output, rows):
    """Leave only these rows in the log: an epoch cut short before its backup is logged again."""
    path = output / "log.csv"
    if not rows:
        path.unlink(missing_ok=True)
        return
    beside = path.with_name(f".{path.name}")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    beside.replace(path)


def _best(rows):
    """Return the best mean IoU of the log and its epoch, from 0; None for an empty log."""
    scores = [(float(row[MONITOR]), -int(row["epoch"])) for row in rows]
    scores = [score for score in scores if not math.isnan(score[0])]
    if not scores:
        return None
    mean_iou, epoch = max(scores)  # the first of equal ones
    return mean_iou, -epoch


def _check_loss(losses, output):
    if losses and not math.isfinite(losses[-1]):
        raise ValueError(
            f"The loss should stay finite. It became {losses[-1]}, and the training stopped. "
            "Start again with a lower learning rate and another output folder; the best epoch so "
            f"far is '{output / 'best.keras'}', if there was one."
        )


def _finish(output):
    """Write the final model and the result; return the result."""
    rows = _read_log(output)
    mean_iou, epoch = _best(rows)
    seconds = sum(float(row["seconds"]) for row in rows)
    model = output / "model.keras"
    beside = output / ".model.keras"
    keras.saving.load_model(output / "best.keras", compile=False).save(beside)
    result = {
        "file": str(model),
        "mean_iou": mean_iou,
        "epoch": epoch + 1,
        "seconds": round(seconds, 1),
    }
    record = json.loads((output / "training.json").read_text())
    write_json(output / "training.json", {**record, "result": {**result, "file": model.name}})
    beside.replace(model)
    shutil.rmtree(output / "backup")
    return result


# Data


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a pass over the data finds."""

    images: dict  # {"train": images, "validation": images}
    channels: int
    classes: list  # names
    ignore: int
    training: np.ndarray  # (num_classes,) labelled pixels of each class

    num_classes = property(lambda self: len(self.classes))


def _load(task, split, **options):
    if task.data.partition("/")[0] not in SOURCES:
        options |= {"values": task.values, "colors": task.colors}
    with warnings.catch_warnings():
        # without `ignore`, load warns of 255 in the masks; here it is then the ignore label
        warnings.filterwarnings("ignore", "The masks hold the label 255")
        return load(task.data, split, ignore=task.ignore, **options)


def count_labels(task):
    """Read all label maps once: a compiled step could not tell of a label that is no class.

    Args:
        task: `Task`.

    Returns:
        `Labels`.

    Raises:
        ValueError: when a label is no class, or a split has no labelled pixels.
        FileNotFoundError: when the data does not exist.
    """
    source = SOURCES.get(task.data.partition("/")[0])
    ignore = task.ignore
    if ignore is None:
        ignore = 255 if source is None else source.ignore
    images, pixels = {}, {}
    for name, split in (("train", task.split), ("validation", task.validation)):
        dataset = _load(task, split)
        images[name], pixels[name] = _count(dataset, ignore)
        if not pixels[name]:
            raise ValueError(
                f"The split {split!r} should have labelled pixels. Received: {images[name]} "
                f"images whose every pixel has the ignore label {ignore}."
            )
    classes = _class_names(task, source, max(pixels["train"]) + 1)
    for split in pixels:
        _check_labels(pixels[split], len(classes), split, ignore)
    training = np.array([pixels["train"][label] for label in range(len(classes))])
    return Labels(images, dataset.element_spec[0].shape[-1], classes, ignore, training)


def _count(dataset, ignore):
    """Return the number of images, and {label: pixels} without the void ones."""
    images, pixels = 0, collections.Counter()
    for _, label_map in dataset.as_numpy_iterator():
        labels, counts = np.unique(label_map, return_counts=True)
        pixels.update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
        images += 1
    del pixels[ignore]
    return images, pixels


def _class_names(task, source, occurring):
    """Return the names of the classes, numbers where none are known."""
    if source is not None:
        names = source.classes
        if isinstance(names, dict):  # by configuration, of which the first is the default
            names = names[task.data.partition("/")[2] or next(iter(names))]
        if task.num_classes in (None, len(names)):
            return list(names)
    # one class alone is nothing to learn
    return [f"class {label}" for label in range(task.num_classes or max(2, occurring))]


def _check_labels(pixels, num_classes, split, ignore):
    wrong = [label for label in sorted(pixels) if not 0 <= label < num_classes]
    if wrong:
        raise ValueError(
            f"The labels should be 0 to {num_classes - 1}, or the ignore label {ignore}. Received: "
            f"{wrong[:8]} in the {split} masks. Give the right number of classes, or, if one of "
            "them marks void pixels, give it as `ignore`."
        )


def log_class_weights(pixels):
    """Weigh rare classes up by the logarithm of their share; 1 on average over the pixels.

    Args:
        pixels: array or list of `(num_classes,)`, labelled pixels of each class.

    Returns:
        A list of one weight a class, proportional to 1 / log(1.1 + its share).

    Example:

    >>> [round(weight, 2) for weight in log_class_weights([90, 10])]
    [0.78, 2.97]
    """
    pixels = np.asarray(pixels)
    weights = 1 / np.log(1.1 + pixels / pixels.sum())
    return (weights * pixels.sum() / (weights * pixels).sum()).tolist()


def count_steps(task, labels):
    """Return the batches in an epoch."""
    return task.steps or math.ceil(labels.images["train"] / task.batch_size)


def training_set(task, completed=0):
    """An endless stream of full batches (batch, crop, crop, channels), (batch, crop, crop).

    Args:
        task: `Task`.
        completed: epochs of the run that need no batches any more.
    """
    crops = _load(
        task,
        task.split,
        crop_size=task.crop_size,
        shuffle=True,
        augment=task.augment,
        seed=task.seed + completed,  # a resumed run does not see the first epochs' crops again
    )
    return crops.repeat().batch(task.batch_size, drop_remainder=True).prefetch(2)


def validation_set(task, ignore, devices=1):
    """Whole images, one for each device: padded together, the last ones filled with void."""
    import tensorflow as tf

    def fill(images, labels):
        missing = devices - tf.shape(labels)[0]
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        labels = tf.pad(labels, [[0, missing], [0, 0], [0, 0]], constant_values=ignore)
        return images, labels

    dataset = _load(task, task.validation, batch_size=devices)
    return dataset if devices == 1 else dataset.map(fill)


# Model


def _build(recipe, num_classes, channels):
    """Return the network, with the weights from which it starts."""
    import keras_fcn

    if recipe.weights in pretrained():
        model = from_pretrained(recipe.weights, num_classes)
        if model.input_shape[-1] != channels:
            raise ValueError(
                f"The weights {recipe.weights!r} take images of {model.input_shape[-1]} channels. "
                f"Received: data with {channels}. Train from scratch or from 'imagenet'."
            )
        return model
    arguments = {
        "filters": recipe.filters and tuple(recipe.filters),
        "encoder": recipe.encoder,
        "batch_norm": recipe.batch_norm or None,
        "dropout": recipe.dropout,
        "upsampling": recipe.upsampling,
        "fc_filters": recipe.fc_filters,
        "weights": recipe.weights,
    }
    return getattr(keras_fcn, FACTORIES[recipe.model])(
        input_shape=(None, None, channels),
        num_classes=num_classes,
        **{name: value for name, value in arguments.items() if value is not None},
    )


def _compile(model, recipe, steps, class_weights, ignore):
    total = steps * recipe.epochs
    warm_up = max(1, round(WARM_UP * total))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = make_optimizer(recipe.optimizer, schedule, recipe.momentum)
    compile_model(model, optimizer, class_weights, ignore)


def make_optimizer(name, learning_rate, momentum=None):
    """Return the optimizer of a name of `OPTIMIZERS`; only SGD has a momentum to set."""
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum)
    if name == "muon":
        return Muon(learning_rate)
    return keras.optimizers.AdamW(learning_rate)


def compile_model(model, optimizer, class_weights=None, ignore=None):
    """Compile a network for label maps, with `val_mean_iou` among the scores of validation.

    Args:
        model: Keras model of class probabilities.
        optimizer: Keras optimizer.
        class_weights: list of one weight a class; by default 1 each.
        ignore: the label of void pixels, or None.
    """
    model.compile(
        optimizer=optimizer,
        loss=WeightedCrossentropy(class_weights, ignore_class=ignore),
        metrics=[SegmentationMetrics(model.output_shape[-1], ignore)],
        # XLA on TensorFlow is slower on CPUs, and compiles anew for every size of image
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )


@contextlib.contextmanager
def _precision(mixed):
    """Build layers that compute in bfloat16, if `mixed`."""
    policy = keras.config.dtype_policy()
    if mixed:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def _devices(data_parallel):
    """Put models on all devices, if `data_parallel`; yield the number of devices."""
    backend = keras.backend.backend()
    if not data_parallel:
        yield 1
    elif backend == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy()
        with strategy.scope():
            yield strategy.num_replicas_in_sync
    elif backend == "jax":
        previous = keras.distribution.distribution()
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        try:
            yield len(keras.distribution.list_devices())
        finally:
            keras.distribution.set_distribution(previous)
    else:
        raise ValueError(
            "`data_parallel` works on the backends tensorflow and jax. Received: the backend "
            f"{backend}. Set the environment variable KERAS_BACKEND."
        )


def _check_batch_size(batch_size, devices):
    if batch_size % devices:
        raise ValueError(
            f"`batch_size` should be a multiple of the number of devices, {devices}. Received: "
            f"batch_size={batch_size}"
        )


# Callbacks


def _callbacks(recipe, output, labels):
    """Return the callbacks in their order: the backup last, so that it has seen all others."""
    rows = _read_log(output)
    _trim_log(output, rows)
    best = _best(rows)
    threshold = None if best is None else best[0]
    better = {"monitor": MONITOR, "mode": "max"}
    besides = {name: output / f".{name}" for name in CHECKPOINTS}
    for path in besides.values():
        path.unlink(missing_ok=True)  # of an interrupted save

    pictured = _load(recipe, recipe.validation).take(PICTURED).as_numpy_iterator()
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
