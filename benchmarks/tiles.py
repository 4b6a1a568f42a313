"""Seconds per megapixel and peak memory of images larger than memory, in tiles.

    python -m benchmarks.tiles [--megapixels 1 4 16 64] [--tile-size 512] [--filters 16 32 64]

Each size runs in a process of its own: `predict_into` on a `numpy.memmap`, labels into a `.npy`.
The network is small, so that what is measured is the way there and back, too. Memory is the most
that the process held, and what that is above the process before it predicts.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 256  # of the image, made at a time


def memory(name):
    """Return a number of bytes of this process: "VmHWM", the most that it held, or "VmRSS"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def predict(side, filters, tile_size, engine):
    """Predict an image of a size, and print seconds and bytes."""
    import numpy as np

    import keras_fcn

    model = keras_fcn.UNet(filters=filters, num_classes=4)
    rng = np.random.default_rng(0)
    keras_fcn.predict_image(model, rng.integers(0, 256, (64, 64, 3), "uint8"), engine=engine)
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "image").open("wb") as file:  # not mapped: that would count as memory
            for top in range(0, side, ROWS):
                rows = min(ROWS, side - top)
                file.write(rng.integers(0, 256, (rows, side, 3), "uint8").tobytes())
        image = np.memmap(Path(folder) / "image", "uint8", "r", shape=(side, side, 3))
        before, start = memory("VmRSS"), time.perf_counter()
        path = Path(folder) / "labels.npy"
        keras_fcn.predict_into(model, image, path, tile_size=tile_size, engine=engine)
        print(time.perf_counter() - start, memory("VmHWM"), before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 4, 16, 64])
    parser.add_argument("--tile-size", type=int, default=512)
    parser.add_argument("--filters", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--side", type=int, help="predict one image, and print the bare numbers")
    options = parser.parse_args()
    if options.side:
        predict(options.side, options.filters, options.tile_size, options.engine)
        return
    print(f"U-Net of {options.filters} filters, tiles of {options.tile_size}, {options.engine}\n")
    print("| pixels | seconds per megapixel | peak memory, GB | above the process before |")
    print("| --- | --- | --- | --- |")
    for megapixels in options.megapixels:
        side = round((megapixels * 1e6) ** 0.5)
        command = [sys.executable, "-m", "benchmarks.tiles", "--side", str(side)]
        command += ["--tile-size", str(options.tile_size), "--engine", options.engine]
        command += ["--filters", *map(str, options.filters)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, most, before = map(float, result.stdout.split()[-3:])
        print(
            f"| {side}x{side} | {seconds / side**2 * 1e6:.2f} | {most / 1e9:.2f} "
            f"| {(most - before) / 1e9:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
