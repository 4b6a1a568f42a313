"""How long a command takes from a cold start: seconds of a process of its own.

    python -m benchmarks.cold_start [--repeats 5]

The installed `keras-fcn` is run, in turn with Python's bare start and TensorFlow's import, which
are in every prediction; printed are the median and the range.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keras_fcn = str(Path(sys.executable).with_name("keras-fcn"))
    python = [sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), "uint8")
        Image.fromarray(pixels).save(Path(folder) / "photo.png")
        predict = ["predict", "photo.png", "--weights", "unet_camvid"]
        commands = {
            "Python itself": [*python, ""],
            "`import tensorflow`": [*python, "import tensorflow"],
            "`keras-fcn --help`": [keras_fcn, "--help"],
            "`keras-fcn predict` of a 256x256 photo": [keras_fcn, *predict],
            "the same with OpenVINO": [keras_fcn, *predict, "--engine", "openvino"],
        }
        seconds = {name: [] for name in commands}
        for repeat in range(options.repeats):
            for name, command in commands.items():
                output = ["--output", f"{name[-8:]} {repeat}".replace(" ", "_")]
                words = [*command, *output] if "predict" in command else command
                start = time.perf_counter()
                subprocess.run(words, cwd=folder, check=True, capture_output=True, env=os.environ)
                seconds[name].append(time.perf_counter() - start)
    print("| command | seconds | range |\n| --- | --- | --- |")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} |")


if __name__ == "__main__":
    main()
