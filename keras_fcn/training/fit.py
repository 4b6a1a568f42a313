"""Train a network on a data set, and go on after an interruption."""

import contextlib
import math
import sys
from pathlib import Path

import keras

from keras_fcn import catalogue
from keras_fcn.cards import pretrained
from keras_fcn.catalogue import from_pretrained
from keras_fcn.losses import WeightedCrossentropy
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.optimizers import Muon
from keras_fcn.training.callbacks import make_callbacks
from keras_fcn.training.labels import (
    count_labels,
    count_steps,
    log_class_weights,
    training_set,
    validation_set,
)
from keras_fcn.training.recipe import FACTORIES
from keras_fcn.training.run import (
    check_output,
    completed_epochs,
    describe_run,
    finish,
    mend_backup,
    write_json,
)

WARM_UP = 0.05  # of all steps


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
    mend_backup(output / "backup")
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
            training_set(recipe, completed_epochs(output)),
            validation_data=validation_set(recipe, labels.ignore, devices),
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            callbacks=make_callbacks(recipe, output, labels),
            shuffle=False,  # the training set is shuffled
            verbose=1 if sys.stdout.isatty() else 2,
        )
    _check_loss(history.history.get("loss", []), output)
    return finish(output)


def _check_loss(losses, output):
    if losses and not math.isfinite(losses[-1]):
        raise ValueError(
            f"The loss should stay finite. It became {losses[-1]}, and the training stopped. "
            "Start again with a lower learning rate and another output folder; the best epoch so "
            f"far is '{output / 'best.keras'}', if there was one."
        )


def _build(recipe, num_classes, channels):
    """Return the network, with the weights from which it starts."""
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
    return catalogue.FACTORIES[FACTORIES[recipe.model]](
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
