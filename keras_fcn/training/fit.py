"""Train a network on a data set, and go on after an interruption."""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import time
from pathlib import Path

import keras

from keras_fcn.atomic import remove_leftovers, write_json
from keras_fcn.catalogue import set_classes
from keras_fcn.losses import DiceCrossentropy, WeightedCrossentropy
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.optimizers import Muon
from keras_fcn.private import without_traces
from keras_fcn.remedies import given, spell
from keras_fcn.training.callbacks import DivergenceError, ImageGrid, Keeper, Progress, make_board
from keras_fcn.training.labels import (
    Labels,
    log_class_weights,
    read_data,
    training_set,
    validation_set,
)
from keras_fcn.training.log import recover_log
from keras_fcn.training.network import (
    ENCODER,
    build,
    check_weights,
    describe,
    freeze_encoder,
)
from keras_fcn.training.plan import describe_plan, fit_into, keeps_vgg16, plan, plan_splits
from keras_fcn.training.recipe import Recipe, recall
from keras_fcn.training.run import (
    check_scope,
    describe_run,
    finish,
    load_state,
    mend,
    read_record,
    steps_of_file,
    update_record,
    working_in,
)

WARM_UP = 0.05  # of all steps


def train(recipe: Recipe, output: str | os.PathLike, per_class: bool = False) -> dict:
    """Train a model as a recipe says; go on where an interrupted run of it stopped.

    What the recipe leaves out is planned from the data and the machine, printed with a
    reason for each choice, and recorded. After an interruption, `kill -9` included, the
    same call goes on after the last whole epoch, after SIGTERM, SIGHUP or Ctrl-C after the last
    step, with the images in the order in which the run would have had them: on one CPU it
    ends with the same weights. The log holds each epoch once.

    Two things outlast the call in its process: the random numbers of Python, NumPy and Keras go on
    from the recipe's seed, and after `deterministic` TensorFlow stays so.

    Args:
        recipe: `Recipe`.
        output: folder of the run, new or empty, or that of the interrupted run.
        per_class: whether the line of each epoch shows the IoU of each class; the log has
            them in any case.

    Returns:
        Dict of the model's `file`, its `mean_iou` on the validation images, whole, its
        `epoch`, counted from 1, and the `seconds` that all epochs took.

    Raises:
        FileExistsError: when `output` holds a finished run, or files of something else, or
            another process trains into it.
        ValueError: when it holds a run of another recipe, when data and recipe do not
            fit, when loss or weights are no longer finite, or within the scope of a strategy
            of TensorFlow with several devices.
        FileNotFoundError: when the data does not exist.

    Example:

    >>> recipe = Recipe("shapes/cells", filters=(16, 32, 64), epochs=20, crop_size=96)
    >>> train(recipe, "runs/cells")["file"]  # doctest: +SKIP
    'runs/cells/model.keras'
    """
    output = Path(output)
    with working_in(output):
        record = read_record(output, recipe.parameters)
        if record is None:
            planned, reasons, data = make_plan(recipe)
        else:
            planned = recall(Recipe, record["parameters"], output / "training.json")
            data = read_data(planned)
        with _precision(planned.mixed_precision), _devices(planned.data_parallel) as devices:
            keras.utils.set_random_seed(planned.seed)
            if planned.deterministic:
                _be_deterministic()
            model, metric = _make_model(planned, data, devices)
            if record is None:
                described = {**describe_run(planned, data), "given": recipe.parameters}
                described["network"] = describe(model)
                write_json(output / "training.json", {**described, "plan": reasons})
                print("\n".join(["Planned:", *describe_plan(planned, reasons)]), flush=True)
            keeper = Keeper(output, metric, data.classes.names, planned.early_stopping, per_class)
            try:
                _fit(model, planned, output, data, devices, keeper)
            except DivergenceError as error:
                update_record(output, failed=str(error))
                raise
        return finish(output)


def make_plan(recipe: Recipe) -> tuple[Recipe, dict, Labels]:
    """Plan what a recipe leaves out; return the `Recipe`, the reasons and the `Labels`."""
    check_weights(recipe)
    recipe, reasons = plan_splits(recipe)
    data = read_data(recipe)
    recipe, more = plan(recipe, data)
    reasons |= more
    if recipe.minutes is not None:
        recipe, more = fit_into(recipe, *_measure(recipe, data))
        reasons |= more
    return recipe, reasons, data


def _measure(recipe, data):
    """Return the seconds that a step and a validation take here, by a network made for that."""
    recipe = dataclasses.replace(recipe, minutes=None, steps=1, epochs=1)
    with _precision(recipe.mixed_precision), _devices(recipe.data_parallel) as devices:
        model, _ = _make_model(recipe, data, devices)
        if keeps_vgg16(recipe):
            freeze_encoder(model, True)
        batches = iter(_batches(recipe, data, 0))
        step = _time(lambda: model.train_on_batch(*next(batches)))
        image, _ = next(data.splits["validation"].pick([0]))
        seconds = _time(lambda: model.predict_on_batch(image[None]))
    # by the pixels, for the first image may be small
    return step, seconds * data.to_validate / math.prod(image.shape[:2])


def _time(action, repetitions=4):
    """Return the shortest of the seconds of an action, after a first time."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _be_deterministic():
    """Let the process compute by operations alone that give the same each time."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{spell('deterministic')} works on the backend tensorflow. Received: the backend "
            f"{keras.backend.backend()}. Leave it out, or set the environment variable "
            "KERAS_BACKEND."
        )
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


def _make_model(recipe, data, devices):
    """Return the network, with an optimizer that knows all of its weights, and its metric."""
    if recipe.batch_size % devices:
        raise ValueError(
            f"{spell('batch_size')} should be a multiple of the number of devices, {devices}. "
            f"Received: {given('batch_size', recipe.batch_size)}"
        )
    if recipe.freeze_encoder and keras.backend.backend() == "jax":
        raise ValueError(
            f"{spell('freeze_encoder')} works on the backends tensorflow and torch. Received: the "
            "backend jax. Leave it out, or set the environment variable KERAS_BACKEND."
        )
    outputs = 1 if recipe.num_classes == 1 else data.num_classes
    model = build(recipe, outputs, data.channels)
    set_classes(model, data.classes)
    weights = None if recipe.border_weights else class_weights(recipe, data)
    metric = _compile(model, recipe, weights, data.ignore)
    model.optimizer.build(model.trainable_variables)
    return model, metric


def class_weights(recipe, data):
    """Return a list of one weight a class, or None for 1 each."""
    return log_class_weights(data.training) if recipe.class_weights == "log" else None


def _fit(model, recipe, output, data, devices, keeper):
    """Train from the state in the folder to the end."""
    step = load_state(model, output)
    steps, epochs = recipe.steps, recipe.epochs
    pairs = list(data.splits["validation"].pick(data.pictured))
    remove_leftovers(output / "pictures")
    grid = ImageGrid(pairs, output / "pictures", data.classes)
    validation = validation_set(data.splits["validation"], devices)
    rows, lost = recover_log(output, step // steps)
    if lost:
        _score_best(model, output, validation, rows, steps)
    mend(model, output, rows, steps)
    keeper.rows = rows
    on_terminal = sys.stdout.isatty()
    with keeper, without_traces():
        if step // steps > len(rows):  # stopped between the last step of an epoch and its scores
            _validate(model, validation, step // steps - 1, [grid, keeper])
        for first, last in _stretches(step, recipe):
            if keeper.is_done:
                break
            if recipe.freeze_encoder:
                freeze_encoder(model, first // steps < recipe.freeze_encoder)
            model.fit(
                _batches(recipe, data, first),
                validation_data=validation,
                initial_epoch=first // steps,
                epochs=last // steps,
                steps_per_epoch=min(steps - first % steps, last - first),
                callbacks=[grid, *make_board(output, keeper), Progress(epochs), keeper],
                shuffle=False,  # the training set is shuffled
                verbose=1 if on_terminal else 2,
            )


def _score_best(model, output, validation, rows, steps):
    """Give the best epoch its score again, where its row is lost: later ones are held against it.

    The model has the state of last.keras afterwards.
    """
    best = output / "best.keras"
    if best.exists():
        epoch = steps_of_file(model, best) // steps - 1
        if epoch < len(rows):  # else it is the one that gets its scores anyway
            scores = model.evaluate(validation, return_dict=True, verbose=0)
            rows[epoch] |= {f"val_{name}": value for name, value in scores.items()}
        load_state(model, output)


def _stretches(step, recipe):
    """Return the (first, last) steps of the calls of `fit` that are left.

    A call has epochs of one length, in which the same weights are trained.
    """
    steps = recipe.steps
    ends = [-(-step // steps) * steps, (recipe.freeze_encoder or 0) * steps, recipe.epochs * steps]
    ends = sorted({end for end in ends if step < end <= recipe.epochs * steps})
    return list(zip([step, *ends], ends, strict=False))


def _batches(recipe, data, step):
    weights = class_weights(recipe, data)
    return training_set(recipe, data.splits["train"], step, recipe.border_weights, weights)


def _validate(model, validation, epoch, callbacks):
    """Do what is left of an epoch whose steps are done."""
    for callback in callbacks:
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
    scores = model.evaluate(validation, return_dict=True, verbose=0, callbacks=callbacks)
    logs = {f"val_{name}": value for name, value in scores.items()}
    for callback in callbacks:
        callback.on_epoch_end(epoch, logs)


def _compile(model, recipe, weights, ignore):
    total = recipe.steps * recipe.epochs
    warm_up = max(1, round(WARM_UP * total))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, total - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    shares = None
    if recipe.encoder_share is not None:
        shares = {rf"\b{ENCODER.pattern}/": recipe.encoder_share}
    optimizer = make_optimizer(recipe.optimizer, schedule, recipe.momentum, shares)
    return compile_model(model, optimizer, weights, ignore, recipe.loss)


def make_optimizer(name, learning_rate, momentum=None, shares=None):
    """Return the optimizer of a name of `OPTIMIZERS`.

    Only SGD has a momentum to set, and only Muon shares of the rate, by the path of the weights.
    """
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum)
    if name == "muon":
        return Muon(learning_rate, shares=shares)
    return keras.optimizers.AdamW(learning_rate)


def compile_model(model, optimizer, class_weights=None, ignore=None, loss=None):
    """Compile a network for label maps, with `val_mean_iou` among the scores of validation.

    Args:
        model: Keras model of class probabilities.
        optimizer: Keras optimizer.
        class_weights: list of one weight a class; by default 1 each.
        ignore: the label of void pixels, or None.
        loss: one of `LOSSES`; by default crossentropy.

    Returns:
        The `SegmentationMetrics` of the model.
    """
    metric = SegmentationMetrics(model.output_shape[-1], ignore)
    kind = DiceCrossentropy if loss == "dice" else WeightedCrossentropy
    model.compile(
        optimizer=optimizer,
        loss=kind(class_weights, ignore_class=ignore),
        metrics=[metric],
        # XLA on TensorFlow is slower on CPUs, and compiles anew for every size of image
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    return metric


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


@functools.cache
def _mirrored():
    """Return the one strategy of the process.

    A second numbers its sums over the devices from the start again, and TensorFlow takes them for
    the first's, which are of other shapes where the network is another.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy()


@contextlib.contextmanager
def _devices(data_parallel):
    """Put models on all devices, if `data_parallel`; yield the number of devices."""
    backend = keras.backend.backend()
    check_scope(alone=data_parallel)
    if not data_parallel:
        yield 1
    elif backend == "tensorflow":
        strategy = _mirrored()
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
            f"{spell('data_parallel')} works on the backends tensorflow and jax. Received: the "
            f"backend {backend}. Set the environment variable KERAS_BACKEND."
        )
