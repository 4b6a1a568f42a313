"""Where OpenVINO's time goes, layer by layer, and which share of the machine's peak each reaches.

    python -m benchmarks.layers [--network UNet] [--size 512]

The peak is that of a large matrix product in float32. A convolution may pass it: by Winograd's
algorithm it multiplies less than is counted.
"""

import argparse

import keras_fcn
from benchmarks.work import multiplications, peak
from keras_fcn.inference.engines import read_openvino

REPEATS = 5


def measure(model, size):
    """Return {name of a node: (kind, seconds)} of the fastest of several runs."""
    import numpy as np
    import openvino

    network = read_openvino(model)
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    images = np.zeros((1, size, size, model.input_shape[-1]), "float32")
    runs = []
    for _ in range(REPEATS):
        request.infer([images])
        nodes = [node for node in request.profiling_info if node.real_time.total_seconds()]
        runs.append({n.node_name: (n.node_type, n.real_time.total_seconds()) for n in nodes})
    return min(runs, key=lambda run: sum(seconds for _, seconds in run.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="UNet")
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    model = getattr(keras_fcn, options.network)()
    work = multiplications(model, (options.size, options.size))
    most = peak()
    nodes = measure(model, options.size)
    total = sum(seconds for _, seconds in nodes.values())
    print(f"the peak: {most / 1e9:.0f} 10^9 multiplications a second\n")
    print("| layer | 10^9 multiplications | ms | of the time | of the peak |")
    print("| --- | --- | --- | --- | --- |")
    rest = total
    for name, count in work.items():
        # a node is called after the operations of TensorFlow's graph, these after the layer
        mine = [s for node, (kind, s) in nodes.items() if f"/{name}/" in node and "onv" in kind]
        seconds = sum(mine)
        rest -= seconds
        if seconds:
            print_row(name, count, seconds, total, most)
    print_row("all else", 0, rest, total, most)
    print_row("all", sum(work.values()), total, total, most)


def print_row(name, count, seconds, total, most):
    print(
        f"| {name} | {count / 1e9:.2f} | {seconds * 1e3:.1f} | {seconds / total:.0%} "
        f"| {count / seconds / most:.0%} |"
    )


if __name__ == "__main__":
    main()
