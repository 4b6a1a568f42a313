"""Predict images of changing sizes in one process, and see that it takes no more memory or time.

    python tools/soak.py --count 10000

A graph for each size, a cache that keeps everything or a leak would show: the process should have
the same size after the first hundred predictions and after the last, and the last thousand should
take as long as those before.
"""

import argparse
import sys
import time

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from keras_fcn import UNet, predict_image

WARM = 100  # predictions after which the memory should be flat
LARGEST_GROWTH = 2**26  # bytes; what has been freed is not given back at once
LARGEST_SLOWDOWN = 1.5  # of the last quarter against the first after the warm-up


def soak(count, side, engine, seed):
    """Return the memory and the seconds of the processor after each prediction."""
    rng = np.random.default_rng(seed)
    model = UNet(num_classes=3, filters=(4, 8))
    process, memory, seconds = psutil.Process(), [], []
    for _ in track(range(count), "Predicting", console=Console(stderr=True)):
        height, width = rng.integers(1, side + 1, 2)
        image = rng.integers(0, 256, (height, width, 3), "uint8")
        begin = time.process_time()
        assert predict_image(model, image, engine=engine).shape == (height, width, 3)
        seconds.append(time.process_time() - begin)
        memory.append(process.memory_info().rss)
    return np.array(memory), np.array(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="predictions; 10000")
    parser.add_argument("--side", type=int, default=64, help="largest height and width; 64")
    parser.add_argument("--engine", default="keras", help="keras, openvino or onnx")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.count < 5 * WARM:
        parser.error(f"--count should be {5 * WARM} or more. Received: {options.count}")
    memory, seconds = soak(options.count, options.side, options.engine, options.seed)
    for place in sorted({WARM, 10 * WARM, options.count // 4, options.count // 2, options.count}):
        print(f"after {place} predictions: {memory[place - 1] / 2**20:.1f} MB")
    quarter = (options.count - WARM) // 4
    first, last = (np.median(part) for part in (seconds[WARM:][:quarter], seconds[-quarter:]))
    print(f"a prediction: {1e3 * first:.2f} ms at first, {1e3 * last:.2f} ms at the end")
    growth = int(memory[-1]) - int(memory[WARM - 1])
    return int(growth > LARGEST_GROWTH or last > LARGEST_SLOWDOWN * first)


if __name__ == "__main__":
    sys.exit(main())
