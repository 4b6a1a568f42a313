"""Print the tables of speed: this package, by each engine, beside what a user would pick instead.

    pip install 'keras-fcn[benchmark]'
    python -m benchmarks --results results [--parts images_UNet_openvino tiles]

Each part runs in a process of its own, for some minutes, and its table is kept in the folder of
results, with the processor and the versions: what is there is not measured again, so after a kill
the same command goes on. Within a part what is compared runs in turn, so what else the machine
does meets all alike. What is not installed is left out. Runs on the CPU.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import processor, versions

CONTESTANTS = {
    "keras": ["keras", "torch, bfloat16", "smp, VGG16 encoder"],
    "openvino": ["openvino", "openvino, bare"],
    "fewer_bits": ["openvino, bfloat16", "openvino, int8"],
    "onnx": ["onnx"],
}
PARTS = {
    **{
        f"images_{network}_{name}": ["images", "--networks", network, "--by", *by]
        for network in ("FCN8s", "UNet")
        for name, by in CONTESTANTS.items()
    },
    "layers": ["layers"],
    "folders": ["folders"],
    "training_step_FCN8s": ["training_step", "--networks", "FCN8s"],
    "training_step_UNet": ["training_step", "--networks", "UNet"],
    "tiles": ["tiles"],
    "sizes": ["sizes"],
    "sliding_window": ["sliding_window"],
    "cold_start": ["cold_start"],
}


def measure(part):
    """Return what a part prints, below what it is measured on."""
    module, *words = PARTS[part]
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return (
        f"## {part}\n\n`{shlex.join(['python', *command[1:]])}`\n\n"
        f"{processor()}; {versions()}\n\n{printed}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        path = options.results / f"{part}.md"
        if not path.exists():
            path.write_text(measure(part))
        print(path.read_text(), flush=True)


if __name__ == "__main__":
    main()
