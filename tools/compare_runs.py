"""Draw the validation scores of runs of `keras-fcn train` over their steps, in one picture.

    python tools/compare_runs.py --runs imagenet_share scratch --names ImageNet scratch \
        --output docs/imagenet.png

Prints the same as a table. The picture of ImageNet against scratch in docs/guides/transfer.md is
made so; weights/RECIPES.md has the commands of its runs.
"""

import argparse
import json
from pathlib import Path

from keras_fcn.training.log import read_log
from keras_fcn.visualize import load_matplotlib, write_png

SCORE = "val_mean_iou"


def read_curve(run):
    """Return the steps after each epoch of a run, and the score there."""
    rows, _ = read_log(run)
    steps = json.loads((run / "training.json").read_text())["parameters"]["steps"]
    return [steps * (epoch + 1) for epoch in rows], [float(row[SCORE]) for row in rows.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--names", nargs="+", required=True, help="of the runs, in the picture")
    parser.add_argument("--output", type=Path, required=True, help="picture, a PNG")
    options = parser.parse_args()
    figure = load_matplotlib().figure.Figure((7, 3.6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="steps", ylabel="mean IoU on the validation images")
    for name, run in zip(options.names, options.runs, strict=True):
        steps, scores = read_curve(run)
        axes.plot(steps, scores, marker=".", label=name)
        cells = zip(steps, scores, strict=True)
        print(f"{name}:", ", ".join(f"{100 * score:.1f} after {step}" for step, score in cells))
    axes.set(xlim=0, ylim=0)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    write_png(options.output, figure)


if __name__ == "__main__":
    main()
