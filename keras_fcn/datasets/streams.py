"""A split that is opened once and read in several ways, each element known by its place alone."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_fcn.datasets.loading import AHEAD, _open, _transform, ending_at_once


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set.

    Args:
        encoded: `tf.data.Dataset` of what is not read yet: file names, or encoded images.
        read: function of an element of `encoded` that gives (image, label map).
        window: how many elements are shuffled together.
        ignore: the label of void pixels.
        places: function that gives the set of the places of the images, by which those of two
            splits are told to be the same.
    """

    encoded: Any
    read: Callable
    window: int
    ignore: int
    places: Callable[[], set]

    @property
    def images(self):
        """Number of images."""
        return int(self.encoded.cardinality())

    def pairs(self):
        """Return a dataset of images, uint8 (H, W, C), and label maps, int32 (H, W)."""
        return self.encoded.map(self.read, num_parallel_calls=-1, deterministic=True)

    def labels(self):
        """Return a dataset of the label maps alone; images that need no decoding are left."""
        return self.pairs().map(lambda _image, labels: labels, num_parallel_calls=-1)

    def pick(self, positions):
        """Iterate over (image, label map) of these places, in order; no other image is decoded."""
        import tensorflow as tf

        chosen = tf.constant(sorted(positions), "int64")
        placed = self.encoded.enumerate().filter(lambda place, _: tf.reduce_any(place == chosen))
        return placed.map(lambda _, element: element).map(self.read).as_numpy_iterator()

    def batches(self, batch_size):
        """Return batches of whole images, padded together: pixels 0, and the ignore label."""
        padding = (np.uint8(0), np.int32(self.ignore))
        return self.pairs().padded_batch(batch_size, padding_values=padding).prefetch(AHEAD)

    def crops(self, crop_size, augment=None, seed=0, first=0):
        """Return an endless stream of random crops.

        The order is another one in each pass over the images. Order, place of the crop and
        augmentation follow from the seed and from the place in the stream alone, so a stream
        from `first` on goes on where another was left.

        Args:
            crop_size: side of the crops; smaller images are padded.
            augment: an `Augmentation`, or None.
            seed: integer.
            first: place of the first crop.

        Returns:
            `tf.data.Dataset` of crops, uint8 (crop, crop, C) and int32 (crop, crop).
        """
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def shuffle(number):
            # of this function's graph, else the seed is combined with the global one
            tf.compat.v1.set_random_seed(seed + 1)
            return self.encoded.shuffle(self.window, number, reshuffle_each_iteration=False)

        @tf.autograph.experimental.do_not_convert
        def make(place, element):
            parts = element if isinstance(element, tuple) else (element,)
            pair = self.read(*parts)
            place_seed = tf.stack([tf.constant(seed, "int64"), place])
            return _transform(*pair, place_seed, crop_size, True, augment, self.ignore)

        whole, rest = divmod(first, self.images)
        ordered = tf.data.Dataset.range(whole, tf.int64.max).flat_map(shuffle).skip(rest)
        places = ending_at_once(tf.data.Dataset.range(first, tf.int64.max))
        return tf.data.Dataset.zip(places, ordered).map(
            make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


def open_split(source, split, ignore=None, **options):
    """Open a split of a data set.

    Args:
        source, split, ignore, **options: as in `keras_fcn.datasets.load`.

    Returns:
        `Split`.

    Raises:
        ValueError, FileNotFoundError, ImportError: as `load`.

    Example:

    >>> split = open_split("shapes/cells", "train")  # doctest: +SKIP
    >>> crops = split.crops(64, seed=1, first=100)  # doctest: +SKIP
    """
    encoded, read, window, own, places = _open(source, split, ignore, options)
    return Split(encoded, read, window, own if ignore is None else ignore, places)
