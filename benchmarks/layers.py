"""Where OpenVINO's time goes, layer by layer, and which share of the machine's peak each reaches.

    python -m benchmarks.layers [--network UNet] [--size 512]

The peak is that of a large matrix product in float32. A convolution may pass it: by Winograd's
algorithm it multiplies less than is counted.
"""

import argparse
import math

import numpy as np
import openvino

import keras_fcn
from benchmarks.work import peak
from keras_fcn.inference.engines import read_openvino

REPEATS = 5


def convolutions(network):
    """Return {name: (what it is, multiplications)} of a network for images of one size."""
    found = {}
    for node in network.get_ordered_ops():
        if "Convolution" not in node.get_type_name():
            continue
        images, weights = (node.input_value(number).shape for number in range(2))
        maps = node.output(0).shape
        is_transposed = node.get_type_name() == "ConvolutionBackpropData"
        positions = math.prod((images if is_transposed else maps)[2:])
        kind = "transposed" if is_transposed else "convolution"
        kernel = f"{weights[2]}x{weights[3]}"
        text = f"{kind} {kernel}, {images[1]} to {maps[1]}, of {maps[2]}x{maps[3]}"
        found[node.get_friendly_name()] = (text, positions * math.prod(weights))
    return found


def measure(network):
    """Return {name of a node: seconds} of the fastest of several runs."""
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    images = np.zeros(tuple(network.input(0).shape), "float32")
    runs = []
    for _ in range(REPEATS):
        request.infer([images])
        runs.append({n.node_name: n.real_time.total_seconds() for n in request.profiling_info})
    return min(runs, key=lambda run: sum(run.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="UNet")
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    network = read_openvino(getattr(keras_fcn, options.network)())
    network.reshape([1, options.size, options.size, 3])
    most, work, seconds = peak(), convolutions(network), measure(network)
    total = sum(seconds.values())
    print(f"the peak: {most / 1e9:.0f} 10^9 multiplications a second\n")
    print("| layer | 10^9 multiplications | ms | of the time | of the peak |")
    print("| --- | --- | --- | --- | --- |")
    for name, (text, count) in work.items():
        print_row(text, count, seconds.pop(name), total, most)
    print_row("all else", 0, sum(seconds.values()), total, most)
    print_row("all", sum(count for _, count in work.values()), total, total, most)


def print_row(name, count, seconds, total, most):
    print(
        f"| {name} | {count / 1e9:.2f} | {seconds * 1e3:.1f} | {seconds / total:.0%} "
        f"| {count / max(seconds, 1e-9) / most:.0%} |"
    )


if __name__ == "__main__":
    main()
