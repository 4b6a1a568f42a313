"""VGG16 on a 500x500 image: made fully convolutional, and run on its 81 windows in batches.

    python -m benchmarks.sliding_window

Same weights, one run, both ways in turn, the best of several times. The arithmetic is counted
beside it, part by part, so that one sees where time and arithmetic differ; and so is the memory
of the maps, for TensorFlow's allocator keeps what it once had, and hides what a run takes. The
whole is run by OpenVINO, too, where it is installed.
"""

import math
import time
from importlib import util

import keras
import numpy as np
import tensorflow as tf

import keras_fcn
from keras_fcn.inference.engines import compiled
from keras_fcn.inference.products import large_kernels_as_products

SIZE, BATCH, REPEATS = 500, 27, 3
PARTS = {"convolutions": "block5_pool", "fc1": "fc1", "fc2, predictions": "predictions"}


def compiled_parts(model):
    """Return a compiled function for each part of a model, one after the other."""
    functions = {}
    start = model.input
    for part, name in PARTS.items():
        end = model.get_layer(name).output
        functions[part] = compiled_by_keras(keras.Model(start, end))
        start = end
    return functions


def compiled_by_keras(model):
    """Return a model as the engine "keras" computes it, also one that does not take images."""

    @tf.function
    def function(x):
        with large_kernels_as_products(model):
            return model(x, training=False)

    return lambda x: function(tf.constant(x)).numpy()


def whole(model, engine):
    """Return a model as one part, by an engine."""
    return {"all": compiled(model, engine)}


def count(model, input_shape):
    """Count the multiplications of each part, and the bytes of the largest two maps in a row."""
    ends = {name: part for part, name in PARTS.items()}
    multiplications, sum_of_part, most, shape = {}, 0, 0, input_shape
    for layer in model.layers[1:]:  # VGG16 is a chain
        before, shape = shape, layer.compute_output_shape(shape)
        most = max(most, 4 * (math.prod(before) + math.prod(shape)))  # float32
        if layer.weights:
            sum_of_part += math.prod(shape[:-1]) * math.prod(layer.kernel.shape)
        if layer.name in ends:
            multiplications[ends[layer.name]], sum_of_part = sum_of_part, 0
    return multiplications, most


def windows_of(image, size, stride):
    """Return all windows of an image (height, width, 3), as the sliding classifier has them."""
    views = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return np.moveaxis(views[::stride, ::stride].reshape(-1, 3, size, size), 1, -1)


def run(parts, images):
    """Run the parts on a batch; return the output and the seconds of each."""
    seconds, x = {}, images
    for part, function in parts.items():
        start = time.perf_counter()
        x = function(x)
        seconds[part] = time.perf_counter() - start
    return x, seconds


def run_batches(parts, images):
    """Run the parts on one batch after the other; add up the seconds."""
    outputs, total = [], dict.fromkeys(parts, 0.0)
    for start in range(0, len(images), BATCH):
        output, seconds = run(parts, images[start : start + BATCH])
        outputs.append(output)
        total = {part: total[part] + seconds[part] for part in parts}
    return np.concatenate(outputs), total


def best(times):
    return min(times, key=lambda seconds: sum(seconds.values()))


def measure(one_by_one, at_once, windows, image):
    """Return the seconds of the parts on all windows and at once, in turn, the best of each."""
    times = [], []
    for repeat in range(REPEATS + 1):
        _, window_seconds = run_batches(one_by_one, windows)
        _, converted_seconds = run(at_once, image[None])
        if repeat:  # the first time compiles
            times[0].append(window_seconds)
            times[1].append(converted_seconds)
    return [best(seconds) for seconds in times]


def print_row(name, seconds, work=None):
    counts = [f"{count / 1e9:.1f}" for count in work] if work else ["", ""]
    allowed = f"{work[0] / work[1]:.1f}" if work else ""
    times = [f"{value:.2f}" for value in seconds]
    ratio = f"{seconds[0] / seconds[1]:.1f}"
    print("|", " | ".join([name, *counts, allowed, *times, ratio]), "|", flush=True)


def main():
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).uniform(-120, 130, (SIZE, SIZE, 3)).astype("float32")
    classifier = keras.applications.VGG16(weights=None)
    converted = keras_fcn.fully_convolutional(classifier)
    windows = windows_of(image, 224, 32)
    seconds = measure(compiled_parts(classifier), compiled_parts(converted), windows, image)
    window_count, window_bytes = count(classifier, (BATCH, 224, 224, 3))
    window_count = {part: n * len(windows) // BATCH for part, n in window_count.items()}
    converted_count, converted_bytes = count(converted, (1, SIZE, SIZE, 3))
    print(f"{len(windows)} windows of 224x224 in a {SIZE}x{SIZE} image\n")
    print("| part | 10^9 products of windows | at once | ratio | s of windows | at once | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    counts = window_count, converted_count
    for part in PARTS:
        print_row(part, [times[part] for times in seconds], [work[part] for work in counts])
    print_row(
        "all, by Keras",
        [sum(times.values()) for times in seconds],
        [sum(work.values()) for work in counts],
    )
    if util.find_spec("openvino"):
        models = whole(classifier, "openvino"), whole(converted, "openvino")
        print_row("all, by OpenVINO", [t["all"] for t in measure(*models, windows, image)])
    print(
        f"\nMemory of the largest two maps in a row: {window_bytes / 1e9:.2f} GB by batches of "
        f"{BATCH}, {converted_bytes / 1e9:.2f} GB at once"
    )


if __name__ == "__main__":
    main()
