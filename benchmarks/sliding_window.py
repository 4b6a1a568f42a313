"""VGG16 on a 500x500 image: made fully convolutional, and run on its 81 windows in batches.

    python benchmarks/sliding_window.py

Same weights, one run, both ways in turn, the best of several times. The arithmetic is counted
beside it, part by part, so that one sees where time and arithmetic differ; and so is the memory
of the maps, for TensorFlow's allocator keeps what it once had, and hides what a run takes.
"""

import math
import time

import keras
import numpy as np
import tensorflow as tf

import keras_fcn

SIZE, BATCH, REPEATS = 500, 27, 3
PARTS = {"convolutions": "block5_pool", "fc1": "fc1", "fc2, predictions": "predictions"}


def compiled_parts(model):
    """Return a compiled function for each part of a model, one after the other."""
    functions = {}
    start = model.input
    for part, name in PARTS.items():
        end = model.get_layer(name).output
        functions[part] = tf.function(keras.Model(start, end), autograph=False)
        start = end
    return functions


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
    seconds, x = {}, tf.constant(images)
    for part, function in parts.items():
        start = time.perf_counter()
        x = function(x)
        x = x.numpy()  # waits for it
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


def main():
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).uniform(-120, 130, (SIZE, SIZE, 3)).astype("float32")
    classifier = keras.applications.VGG16(weights=None)
    converted = keras_fcn.fully_convolutional(classifier)
    windows = windows_of(image, 224, 32)
    one_by_one, at_once = compiled_parts(classifier), compiled_parts(converted)
    window_times, converted_times = [], []
    for repeat in range(REPEATS + 1):
        _, window_seconds = run_batches(one_by_one, windows)
        output, converted_seconds = run(at_once, image[None])
        if repeat:  # the first time compiles
            window_times.append(window_seconds)
            converted_times.append(converted_seconds)
    window_seconds, converted_seconds = best(window_times), best(converted_times)
    window_count, window_bytes = count(classifier, (BATCH, 224, 224, 3))
    window_count = {part: n * len(windows) // BATCH for part, n in window_count.items()}
    converted_count, converted_bytes = count(converted, (1, SIZE, SIZE, 3))

    print(
        f"{len(windows)} windows of 224x224 in a {SIZE}x{SIZE} image, {output.shape[1:3]} at once"
    )
    print(
        f"{'':18}{'10^9 multiplications':>24}{'seconds':>18}{'10^9 / second':>18}{'ratio of':>18}"
    )
    print(
        f"{'':18}{'windows':>12}{'at once':>12}"
        + f"{'windows':>9}{'at once':>9}" * 2
        + f"{'work':>9}{'time':>9}"
    )
    for part in (*PARTS, "all"):
        work = [
            (sum(counts.values()) if part == "all" else counts[part]) / 1e9
            for counts in (window_count, converted_count)
        ]
        seconds = [
            sum(times.values()) if part == "all" else times[part]
            for times in (window_seconds, converted_seconds)
        ]
        print(
            f"{part:18}{work[0]:12.1f}{work[1]:12.1f}{seconds[0]:9.2f}{seconds[1]:9.2f}"
            f"{work[0] / seconds[0]:9.0f}{work[1] / seconds[1]:9.0f}"
            f"{work[0] / work[1]:9.1f}{seconds[0] / seconds[1]:9.1f}"
        )
    print(
        f"memory of the largest two maps in a row: {window_bytes / 1e9:.2f} GB by batches of "
        f"{BATCH}, {converted_bytes / 1e9:.2f} GB at once"
    )


if __name__ == "__main__":
    main()
