"""Train U-Net on CamVid from scratch: the recipe of the shipped weights `unet_camvid`.

    python examples/train_camvid.py --data path/to/camvid --output runs/unet_camvid

`--data` holds the folders train, trainannot, val and valannot with PNG files of the same names:
images, and label maps with 0 sky … 10 bicyclist and 11 void. Started again after an interruption,
the script goes on from the last whole epoch. At the end it writes `unet_camvid.weights.h5` and its
card `unet_camvid.json` into the output folder.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import keras_fcn
from keras_fcn.datasets import SOURCES
from keras_fcn.weights import save_half_precision, sha256

CLASSES = list(SOURCES["camvid"].classes)
PALETTE = [
    [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
    [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
]  # fmt: skip
VOID = SOURCES["camvid"].ignore
CROP = 256
BATCH = 4
ARCHITECTURE = {
    "input_shape": [None, None, 3],
    "num_classes": len(CLASSES),
    "filters": [16, 32, 64, 128, 256, 384],
    "batch_norm": True,
}


def read(data, split):
    """Return images (n, 360, 480, 3) and label maps (n, 360, 480), both uint8."""
    files = sorted((data / split).glob("*.png"))
    if not files:
        raise SystemExit(f"There are no PNG images in {data / split}.")
    images = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    labels = np.stack([np.asarray(Image.open(data / f"{split}annot" / f.name)) for f in files])
    return images, labels


def class_weights(labels):
    """Weight rare classes up, by the logarithm of their share; void weighs nothing."""
    counts = np.bincount(labels.ravel(), minlength=VOID + 1)[:VOID]
    weights = 1 / np.log(1.1 + counts / counts.sum())
    weights *= counts.sum() / (weights * counts).sum()  # 1 on average over the pixels
    return np.append(weights, 0).astype("float32")


def augment(image, labels):
    """Random scale and crop, mirror image, light and colour; void where no image was."""
    # a crop of CROP / scale pixels, enlarged or reduced to CROP
    scale = tf.exp(tf.random.uniform([], np.log(0.6), np.log(1.6)))
    size = tf.cast(CROP / scale, tf.int32)
    missing = tf.maximum(size - tf.shape(labels)[:2], 0)
    padding = [[0, missing[0]], [0, missing[1]]]
    image = tf.pad(image, [*padding, [0, 0]])
    labels = tf.pad(labels, padding, constant_values=VOID)
    room = tf.shape(labels) - size + 1
    top = tf.random.uniform([], 0, room[0], tf.int32)
    left = tf.random.uniform([], 0, room[1], tf.int32)
    image = image[top : top + size, left : left + size]
    labels = labels[top : top + size, left : left + size, None]
    image = tf.image.resize(image, (CROP, CROP))
    labels = tf.image.resize(labels, (CROP, CROP), "nearest")[..., 0]

    mirrored = tf.random.uniform([]) < 0.5
    image = tf.where(mirrored, image[:, ::-1], image)
    labels = tf.where(mirrored, labels[:, ::-1], labels)

    image = tf.image.random_saturation(image, 0.5, 1.5)
    image *= tf.random.uniform([3], 0.9, 1.1) * tf.exp(tf.random.uniform([], -0.5, 0.5))
    image = tf.image.random_contrast(image, 0.7, 1.3)
    return tf.clip_by_value(image, 0, 255), labels


def training_set(images, labels, seed):
    """An endless stream of batches of (crops, label maps, weights of the pixels)."""
    tf.random.set_seed(seed)
    weights = class_weights(labels)

    def weigh(images, labels):
        return images, tf.minimum(labels, VOID - 1), tf.gather(weights, tf.cast(labels, tf.int32))

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images)).repeat().map(augment, num_parallel_calls=2)
    return data.batch(BATCH).map(weigh).prefetch(2)


def train(data, output, epochs, seed):
    """Fit the network, going on from the backup if there is one."""
    keras.utils.set_random_seed(seed)
    images, labels = read(data, "train")
    steps = len(images) // BATCH
    model = keras_fcn.UNet(**ARCHITECTURE, classifier_activation=None, name="unet_camvid")
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps * epochs, warmup_target=2e-3, warmup_steps=200
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(
        training_set(images, labels, seed),
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[
            keras.callbacks.BackupAndRestore(
                output / "backup", double_checkpoint=True, delete_checkpoint=False
            ),
            EpochSeconds(),
            keras.callbacks.CSVLogger(output / "log.csv", append=True),
        ],
        verbose=2,
    )
    return model


class EpochSeconds(keras.callbacks.Callback):
    """Adds the seconds that an epoch took to its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.time()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.time() - self.start


def evaluate(model, data):
    """Return the intersection over union of each class on the validation images, whole."""
    metric = keras_fcn.metrics.SegmentationMetrics(len(CLASSES), ignore_class=VOID)
    for image, truth in zip(*read(data, "val"), strict=True):
        metric.update_state(truth, keras_fcn.predict_image(model, image).argmax(-1))
    return metric.per_class_iou()


def write_card(output, arguments, iou, seconds):
    """Describe the weights file beside it."""
    file = output / "unet_camvid.weights.h5"
    card = {
        "name": "unet_camvid",
        "factory": "UNet",
        "arguments": ARCHITECTURE,
        "description": "U-Net of six levels and a quarter of the paper's width, with batch "
        "normalisation, trained from scratch.",
        "input": "RGB pixels in [0, 255], any size",
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_label": VOID,
        "dataset": "CamVid road scenes, 480x360: 367 training and 101 validation images "
        "(Brostow, Fauqueur and Cipolla, 2009; split of SegNet), 11 classes and void",
        "data_licence": "no licence text comes with the data; published for research",
        "metric": {
            "split": "val",
            "mean_iou": round(float(iou.mean()), 4),
            "per_class_iou": dict(zip(CLASSES, iou.round(4).tolist(), strict=True)),
        },
        "command": f"python examples/train_camvid.py --epochs {arguments.epochs} "
        f"--seed {arguments.seed} --data DIR --output DIR",
        "seed": arguments.seed,
        "hardware": f"{os.cpu_count()} CPU cores, float32",
        "training_minutes": round(seconds / 60),
        "version": keras_fcn.__version__,
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": sha256(file),
    }
    path = output / "unet_camvid.json"
    path.write_text(json.dumps(card, indent=2) + "\n")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    model = train(arguments.data, arguments.output, arguments.epochs, arguments.seed)
    file = arguments.output / "unet_camvid.weights.h5"
    save_half_precision(model, file)
    model.load_weights(file)  # what is measured is what ships
    iou = evaluate(model, arguments.data)
    for name, value in zip([*CLASSES, "mean"], [*iou, iou.mean()], strict=True):
        print(f"{name:12} {100 * value:5.1f}")
    with (arguments.output / "log.csv").open() as log:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(log))
    print("Card:", write_card(arguments.output, arguments, iou, seconds))


if __name__ == "__main__":
    main()
