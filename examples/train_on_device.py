"""Train with all images on the accelerator: augmentation inside the step, an epoch one program.

    python examples/train_on_device.py --data path/to/camvid --classes 11 --ignore 11 \
        --output runs/camvid

The fastest way where all images fit into the card's memory: the host only starts the epochs. It
needs JAX, images of one size, and no TensorFlow. Network, loss, optimizers and metric are those of
`keras-fcn train`, and so is what the options mean; the augmentation is Keras's layers. Started
again after an interruption, it goes on from the last checkpoint. Writes `model.weights.h5` (half
precision, the weights averaged over the last steps), `log.csv` and `training.json`, from which
`examples/ship_weights.py` makes weights with a card.
"""

import argparse
import csv
import math
import os
import shlex
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from jax import numpy as jnp

import keras_fcn
from keras_fcn.datasets.files import read_pair
from keras_fcn.datasets.folder import find_pairs
from keras_fcn.losses import WeightedCrossentropy
from keras_fcn.metrics import SegmentationMetrics
from keras_fcn.optimizers import Muon
from keras_fcn.training import Recipe, log_class_weights, write_json
from keras_fcn.weights import save_half_precision

AVERAGED = 0.02  # of the steps: the time constant of the average of the weights


def read(recipe, split):
    """Return images (n, H, W, C), and label maps (n, H, W) with void 0 and the classes from 1."""
    pairs = [
        read_pair(*paths, values=recipe.values) for paths in find_pairs(recipe.data, split).pairs
    ]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return images, np.where(labels == recipe.ignore, 0, labels + 1).astype("uint8")


def augmenter(channels):
    """Keras's layers; where nothing was, images and label maps are 0, which is void."""
    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomZoom((-0.375, 0.67), fill_mode="constant"),  # objects 1.6 to 0.6 times
        keras.layers.RandomContrast(0.3),
        keras.layers.RandomBrightness(0.2),
    ]
    if channels == 3:
        layers.append(keras.layers.RandomSaturation((0.3, 0.7), value_range=(0, 1)))
        layers.append(keras.layers.RandomHue(0.05))
    pipeline = keras.layers.Pipeline(layers)
    pipeline.built = True  # the layers have made their variables, the states of their seeds
    return pipeline


def cut(images, labels, size, batch_size, key):
    """Return random crops (batch, size, size, C) and their label maps (batch, size, size, 1)."""
    keys = jax.random.split(key)
    numbers = jax.random.randint(keys[0], (batch_size,), 0, len(images))
    room = np.array(labels.shape[1:]) - size + 1
    corners = jax.random.randint(keys[1], (batch_size, 2), 0, room)

    def one(number, corner):
        start = (number, corner[0], corner[1])
        crop = jax.lax.dynamic_slice(images, (*start, 0), (1, size, size, images.shape[-1]))[0]
        return crop, jax.lax.dynamic_slice(labels, start, (1, size, size))[0]

    crops, maps = jax.vmap(one)(numbers, corners)
    return {
        "images": crops.astype("float32"),
        "segmentation_masks": maps[..., None].astype("float32"),
    }


def compile_epoch(recipe, model, augment, loss, optimizer, steps):
    """Return the compiled function of state, data and key that trains for an epoch."""
    margin = recipe.crop_size // 4  # from which pixels move in
    inner = slice(margin, margin + recipe.crop_size)

    def compute_loss(trainable, fixed, images, labels):
        predictions, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return loss(labels, predictions), fixed

    def epoch(state, images, labels, key):
        def step(state, key):
            trainable, fixed, augmenting, optimizing = state
            crops = cut(images, labels, recipe.crop_size + 2 * margin, recipe.batch_size, key)
            crops, augmenting = augment.stateless_call([], augmenting, crops, training=True)
            pixels = crops["images"][:, inner, inner]
            classes = crops["segmentation_masks"][:, inner, inner, 0].round().astype("int32") - 1
            (value, fixed), gradients = jax.value_and_grad(compute_loss, has_aux=True)(
                trainable, fixed, pixels, classes
            )
            trainable, optimizing = optimizer.stateless_apply(optimizing, gradients, trainable)
            return (trainable, fixed, augmenting, optimizing), value

        state, losses = jax.lax.scan(step, state, jax.random.split(key, steps))
        return state, losses.mean()

    return jax.jit(epoch, donate_argnums=0)


def save(path, state, epoch, key):
    """Write what a run needs to go on beside `path`, then rename it."""
    beside = path.with_name(f".{path.name}")
    arrays = {f"array{n}": np.asarray(array) for n, array in enumerate(jax.tree.leaves(state))}
    np.savez(beside, epoch=epoch, key=jax.random.key_data(key), **arrays)
    beside.replace(path)


def restore(path, state):
    """Return the saved state, in the form of `state`, the epochs behind it, and the key."""
    leaves, form = jax.tree.flatten(state)
    with np.load(path) as file:
        arrays = [jnp.asarray(file[f"array{n}"]) for n in range(len(leaves))]
        key = jax.random.wrap_key_data(jnp.asarray(file["key"]))
        return jax.tree.unflatten(form, arrays), int(file["epoch"]), key


def evaluate(model, images, labels):
    """Return the mean IoU on whole images."""
    metric = SegmentationMetrics(model.output_shape[-1], ignore_class=-1)
    for image, truth in zip(images, labels, strict=True):
        probabilities = keras_fcn.predict_image(model, image)
        metric.update_state(truth.astype("int32") - 1, probabilities.argmax(-1))
    return float(metric.result()["mean_iou"])


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of images and masks")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--validation", default="val")
    parser.add_argument("--classes", type=int, required=True, dest="num_classes")
    parser.add_argument("--ignore", type=int, default=255)
    parser.add_argument("--filters", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="muon")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    output = options.pop("output")
    return Recipe(**options, batch_norm=True, mixed_precision=True), output


def build(recipe, channels, pixels):
    """Return the network, its loss, optimizer and augmentation, with all their variables made."""
    model = keras_fcn.UNet(
        (None, None, channels),
        recipe.num_classes,
        filters=tuple(recipe.filters),
        batch_norm=True,
        dropout=recipe.dropout,
    )
    steps = recipe.steps * recipe.epochs
    warm_up = math.ceil(0.05 * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=recipe.learning_rate, warmup_steps=warm_up
    )
    factory = Muon if recipe.optimizer == "muon" else keras.optimizers.AdamW
    optimizer = factory(schedule, use_ema=True, ema_momentum=1 - 1 / max(2, AVERAGED * steps))
    optimizer.build(model.trainable_variables)
    loss = WeightedCrossentropy(log_class_weights(pixels), ignore_class=-1)
    return model, augmenter(channels), loss, optimizer


def main():
    recipe, output = parse()
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16")
    images, labels = map(jnp.asarray, read(recipe, recipe.split))
    validation = read(recipe, recipe.validation)
    pixels = np.bincount(np.ravel(labels), minlength=recipe.num_classes + 1)[1:]

    model, augment, loss, optimizer = build(recipe, images.shape[-1], pixels)
    train_epoch = compile_epoch(recipe, model, augment, loss, optimizer, recipe.steps)
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        augment.non_trainable_variables,
        optimizer.variables,
    )
    state = jax.tree.map(lambda variable: jnp.array(variable.value), variables)
    checkpoint, start, key = output / "checkpoint.npz", 0, jax.random.key(recipe.seed)
    if checkpoint.exists():
        state, start, key = restore(checkpoint, state)

    with (output / "log.csv").open("a" if start else "w", newline="", buffering=1) as file:
        log = csv.writer(file)
        if not start:
            log.writerow(["epoch", "loss", "seconds", "crops_per_second"])
        for epoch in range(start, recipe.epochs):
            begin = time.perf_counter()
            key, crop_key = jax.random.split(key)
            state, value = train_epoch(state, images, labels, crop_key)
            value = float(value)  # waits for the device
            seconds = time.perf_counter() - begin
            crops = recipe.steps * recipe.batch_size / seconds
            log.writerow([epoch, f"{value:.4f}", f"{seconds:.2f}", f"{crops:.0f}"])
            save(checkpoint, state, epoch + 1, key)

    for variable, value in zip(jax.tree.leaves(variables), jax.tree.leaves(state), strict=True):
        variable.assign(value)
    optimizer.finalize_variable_values(model.trainable_variables)  # the averaged weights
    save_half_precision(model, output / "model.weights.h5")
    mean_iou = evaluate(model, *validation)
    with (output / "log.csv").open(newline="") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "parameters": recipe.parameters,
        "seed": recipe.seed,
        "versions": {"keras_fcn": keras_fcn.__version__, "keras": keras.__version__},
        "result": {"file": "model.weights.h5", "mean_iou": mean_iou, "seconds": seconds},
    }
    write_json(output / "training.json", record)
    checkpoint.unlink()
    print(f"{output / 'model.weights.h5'}: mean IoU {mean_iou:.3f}")


if __name__ == "__main__":
    main()
