"""Shapes: generated cells and streets, for first steps and tests, as a TFDS builder."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from keras_fcn.datasets.catalogue import SOURCES

SIZE = 96
EXAMPLES = {"train": 160, "val": 40}
SEEDS = {"train": 0, "val": 1}
VOID = SOURCES["shapes"].ignore


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """The kind of scene."""

    channels: int = 1


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Generated scenes: touching cells with thin borders, or streets."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        ShapesConfig(
            name="cells",
            description="Gray images of touching cells; class 0 the thin border, 1 the cell.",
            channels=1,
        ),
        ShapesConfig(
            name="street",
            description="RGB images of streets; the hood of the car that films is void, 255.",
            channels=3,
        ),
    )

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Small scenes drawn by a seeded generator, with exact labels: a network "
            "learns them in minutes, and nothing is downloaded.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(SIZE, SIZE, self.builder_config.channels), encoding_format="png"
                    ),
                    "label": tfds.features.LabeledImage(
                        labels=list(SOURCES["shapes"].classes[self.builder_config.name]),
                        shape=(SIZE, SIZE, 1),
                        encoding_format="png",
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):  # noqa: ARG002 TFDS names it
        return {split: self._generate_examples(split) for split in EXAMPLES}

    def _generate_examples(self, split):
        draw = {"cells": draw_cells, "street": draw_street}[self.builder_config.name]
        for number in range(EXAMPLES[split]):
            image, labels = draw(np.random.default_rng((SEEDS[split], number)))
            yield number, {"image": image, "label": labels[..., None]}


def draw_cells(rng, size=SIZE):
    """Draw touching cells with thin dark borders.

    Args:
        rng: `numpy.random.Generator`.
        size: height and width, in pixels.

    Returns:
        uint8 image `(size, size, 1)` and uint8 classes `(size, size)`: 0 border, 1 cell.

    Example:

    >>> import numpy as np
    >>> image, labels = draw_cells(np.random.default_rng(0))
    >>> image.shape, sorted(set(labels.ravel().tolist()))
    ((96, 96, 1), [0, 1])
    """
    spacing = 16
    cells = -(-size // spacing) + 2
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), -1)
    jitter = rng.uniform(-0.45, 0.45, grid.shape)
    centres = ((grid - 0.5 + jitter) * spacing).reshape(-1, 2)  # (cells**2, 2)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1)
    distances = np.linalg.norm(pixels[:, :, None] - centres, axis=-1)  # (H, W, cells**2)
    order = distances.argpartition(1)[..., :2]  # the two nearest, the nearest first
    nearest, second = np.moveaxis(np.take_along_axis(distances, order, -1), -1, 0)
    labels = (second - nearest > 1.5).astype("uint8")
    brightness = rng.uniform(130, 190, len(centres))[order[..., 0]]
    image = np.where(labels, brightness, 70) + rng.normal(0, 12, (size, size))
    return _blur(image)[..., None], labels


def draw_street(rng, size=SIZE):
    """Draw a street scene.

    Args:
        rng: `numpy.random.Generator`.
        size: height and width, in pixels.

    Returns:
        uint8 image `(size, size, 3)`, RGB, and uint8 classes `(size, size)`: 0 sky,
        1 building, 2 tree, 3 road, 4 car, 255 the hood, void.

    Example:

    >>> import numpy as np
    >>> image, labels = draw_street(np.random.default_rng(0))
    >>> image.shape, labels.shape
    ((96, 96, 3), (96, 96))
    """
    y, x = np.mgrid[:size, :size] / size
    image = np.empty((size, size, 3))
    labels = np.zeros((size, size), "uint8")
    image[:] = np.array([120, 170, 230]) + 60 * y[..., None]
    horizon = rng.uniform(0.4, 0.55)

    def paint(region, label, color):
        image[region] = color
        labels[region] = label

    left = 0.0
    while left < 1:
        right = left + rng.uniform(0.15, 0.35)
        roof = horizon - rng.uniform(0.05, 0.35)
        paint((x >= left) & (x < right) & (y > roof), 1, rng.uniform(80, 180, 3))
        left = right + rng.choice([0, 0.08])
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0, 1), rng.uniform(0.06, 0.12)
        top = horizon - rng.uniform(0, 0.1)
        green = (rng.uniform(20, 60), rng.uniform(90, 150), rng.uniform(20, 60))
        paint(np.hypot(x - centre, y - top) < radius, 2, green)
        paint((abs(x - centre) < 0.015) & (y > top) & (y < horizon + 0.05), 2, (80, 60, 40))
    paint(y > horizon, 3, rng.uniform(80, 110))
    paint((abs(x - 0.5) < 0.01) & (y > horizon + 0.1) & (y * 8 % 1 < 0.5), 3, 230)
    for _ in range(rng.integers(1, 4)):
        bottom = rng.uniform(horizon + 0.08, 0.85)
        width = 0.6 * (bottom - horizon + 0.1)  # the nearer, the larger
        centre = rng.uniform(0, 1)
        body = (abs(x - centre) < width / 2) & (y < bottom) & (y > bottom - width / 2)
        paint(body, 4, rng.uniform(0, 255, 3))
    paint(np.hypot((x - 0.5) / 0.6, (y - 1.05) / 0.14) < 1, VOID, (40, 40, 50))
    image += rng.normal(0, 8, image.shape)
    return _blur(image), labels


def _blur(image):
    """Return the image as uint8, each pixel averaged with its neighbours as 1 2 1."""
    from scipy import ndimage

    for axis in (0, 1):
        image = ndimage.convolve1d(image, [0.25, 0.5, 0.25], axis, mode="nearest")
    return image.round().clip(0, 255).astype("uint8")
