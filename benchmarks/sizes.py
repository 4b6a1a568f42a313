"""Images of changing sizes through one process: its memory, and the graphs that it makes.

    python -m benchmarks.sizes [--images 300]

Each engine runs in a process of its own, on images of random heights and widths. Memory is what
the process holds, after a third of the images, two thirds, and all; a graph is made each time that
Python runs through the network.
"""

import argparse
import subprocess
import sys
from importlib import util

from benchmarks.tiles import memory

FILTERS, SIDES = (16, 32, 64), (64, 512)
ENGINES = {"keras": "tensorflow", "openvino": "openvino", "onnx": "tf2onnx"}


def predict(engine, count):
    """Predict images of random sizes, and print bytes and the number of graphs."""
    import numpy as np

    import keras_fcn

    model = keras_fcn.UNet(filters=FILTERS, num_classes=4)
    graphs, call = [], model.call

    def counted(*arguments, **options):
        graphs.append(1)
        return call(*arguments, **options)

    model.call = counted
    rng = np.random.default_rng(0)
    numbers = []
    for number in range(1, count + 1):
        image = rng.integers(0, 256, (*rng.integers(*SIDES, 2), 3), "uint8")
        keras_fcn.predict_image(model, image, engine=engine)
        if number == 1:
            first = len(graphs)
        if number % (count // 3) == 0:
            numbers.append(memory("VmRSS"))
    print(*numbers[:3], len(graphs) - first)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--engine", help="run one, and print the bare numbers")
    options = parser.parse_args()
    if options.engine:
        predict(options.engine, options.images)
        return
    print(
        f"U-Net of {FILTERS} filters, {options.images} images of {SIDES[0]} to {SIDES[1]} pixels\n"
    )
    print("| engine | GB after a third | after two thirds | after all | graphs after the first |")
    print("| --- | --- | --- | --- | --- |")
    for engine, package in ENGINES.items():
        if not util.find_spec(package):
            continue
        command = [sys.executable, "-m", "benchmarks.sizes", "--engine", engine]
        command += ["--images", str(options.images)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        *held, graphs = map(int, result.stdout.split()[-4:])
        print(f"| {engine} | {' | '.join(f'{b / 1e9:.2f}' for b in held)} | {graphs} |", flush=True)


if __name__ == "__main__":
    main()
