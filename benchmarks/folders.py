"""How busy `predict_folder` keeps the network, and what small images in it at once gain.

    python -m benchmarks.folders [--weights unet_camvid] [--engine keras] [--images 200]

The first table is of photographs of 64 to 384 pixels a side, JPEG and PNG, cut from those of
scikit-image and scikit-learn: of the seconds from the first to the last call of the network those
that it was in, once a call has been made before. The second is of images of one size, through
the network at once and one by one in turn, in one process.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image

import keras_fcn
from keras_fcn.inference import predict
from keras_fcn.inference.batches import MOST, PIXELS

SIDES, REPEATS = (64, 96, 128, 192, 256), 9


def photographs():
    """Return the photographs of the two packages that need no download."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "retina")
    pictures = [getattr(skimage.data, name)() for name in names]
    pictures += sklearn.datasets.load_sample_images().images
    return [Image.fromarray(picture).convert("RGB") for picture in pictures]


def write_mixed(folder, count):
    """Write photographs of many sizes; return their pixels."""
    rng = np.random.default_rng(0)
    pictures, pixels = photographs(), 0
    for number in range(count):
        picture = pictures[number % len(pictures)]
        size = [
            min(int(side), most)
            for side, most in zip(rng.integers(64, 385, 2), picture.size, strict=True)
        ]
        left, top = (
            int(rng.integers(most - side + 1))
            for side, most in zip(size, picture.size, strict=True)
        )
        part = picture.crop((left, top, left + size[0], top + size[1]))
        part.save(folder / f"{number:03}.{'jpg' if number % 2 else 'png'}")
        pixels += size[0] * size[1]
    return pixels


class Timed:
    """A compiled network that tells when it is called."""

    def __init__(self):
        self.spans = []

    def wrap(self, compiled):
        """Return `compiled`, whose networks are timed."""

        def make(*arguments, **options):
            network = compiled(*arguments, **options)

            def call(images):
                start = time.perf_counter()
                scores = network(images)
                self.spans.append((start, time.perf_counter()))
                return scores

            return call

        return make

    def busy(self):
        """Return the seconds in the network, and those from the first call to the last."""
        return sum(end - start for start, end in self.spans), self.spans[-1][1] - self.spans[0][0]


def measure_folder(model, engine, count):
    """Print the share of the time in which the network is busy."""
    timed, compiled = Timed(), predict.compiled
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        pixels = write_mixed(photos, count)
        predict.compiled = timed.wrap(compiled)
        try:
            keras_fcn.predict_folder(model, photos, Path(folder) / "out", engine=engine)
        finally:
            predict.compiled = compiled
    inside, whole = timed.busy()
    print("| photographs | megapixels | seconds | in the network |\n| --- | --- | --- | --- |")
    print(f"| {count} | {pixels / 1e6:.1f} | {whole:.1f} | {inside / whole:.1%} |\n", flush=True)


def measure_batches(model, engine):
    """Print the time of images at once as a share of that one by one."""
    network = predict.compiled(model, engine)
    channels = model.inputs[0].shape[-1]
    print("| pixels | at once | time one by one | pixels of all as in `predict` |")
    print("| --- | --- | --- | --- |")
    for side in SIDES:
        count = max(2, min(MOST, PIXELS // side**2))
        images = np.random.default_rng(0).uniform(0, 255, (count, side, side, channels))
        images, shares = images.astype("float32"), []
        for repeat in range(REPEATS + 1):
            start = time.perf_counter()
            network(images)
            middle = time.perf_counter()
            for number in range(count):
                network(images[number : number + 1])
            if repeat:  # the first compiles
                shares.append((middle - start) / (time.perf_counter() - middle))
        low, share, high = np.percentile(shares, (25, 50, 75))
        so = "yes" if count * side**2 <= PIXELS else "no"
        print(
            f"| {side}x{side} | {count} | {share:.2f} ({low:.2f} to {high:.2f}) | {so} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="unet_camvid")
    parser.add_argument("--engine", default="keras")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    model = keras_fcn.load_model(options.weights)
    print(f"{options.weights}, {options.engine}\n")
    if options.images:
        measure_folder(model, options.engine, options.images)
    measure_batches(model, options.engine)


if __name__ == "__main__":
    main()
