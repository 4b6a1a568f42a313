"""Images with their masks, read from files one at a time, when they are asked for."""

import os
from collections.abc import Sequence

import numpy as np

from keras_fcn.arguments import as_label, check_reading
from keras_fcn.datasets.check import check_sample
from keras_fcn.datasets.files import read_pair
from keras_fcn.datasets.folder import find_pairs


class Pairs(Sequence):
    """The images and masks of a folder, as a sequence of pairs of arrays.

    `pairs[0]` reads the first pair: a uint8 image `(height, width, channels)` and its
    int32 label map `(height, width)`. So a file that can't be read raises there, and the
    next one can be read all the same, as `keras_fcn.evaluate` does.

    Args:
        source, split, split_seed, mask_suffix: as in `keras_fcn.datasets.load`.
        channels: 1 for gray, 3 for RGB, or the number of bands; by default what each
            file has.
        ignore: the label of void pixels, if it is known.
        **reading: `colors`, `values`, `white`, `instances` and `max_pixels`, as in
            `keras_fcn.datasets.load`.

    Attributes:
        names: path of each image.

    Raises:
        FileNotFoundError: when the folder or a file of a list does not exist.
        ValueError: for an unknown layout or split, images without masks, and what a
            sample of the files has in common, as masks of colours without `colors`.

    Example:

    >>> pairs = Pairs("data", "all[80%:]", channels=3)  # doctest: +SKIP
    >>> keras_fcn.evaluate(model, pairs, output="evaluation")  # doctest: +SKIP
    """

    def __init__(
        self,
        source: str | os.PathLike | tuple,
        split: str | Sequence[str] = "all",
        channels: int | None = None,
        *,
        ignore: int | None = None,
        split_seed: int | None = None,
        mask_suffix: str | None = None,
        **reading,
    ):
        check_reading(channels=channels)
        ignore = as_label("ignore", ignore)
        listing = find_pairs(source, split, split_seed, mask_suffix)
        check_sample(listing, ignore, training=False, **reading)
        self.names = [str(image) for image, _ in listing.pairs]
        self._paths, self._channels, self._reading = listing.pairs, channels, reading

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, number) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self._paths[number]
        return read_pair(image, mask, self._channels, **self._reading)
