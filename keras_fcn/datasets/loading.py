"""`load`: images and label maps as a `tf.data.Dataset`, from a folder or from TFDS."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_fcn.arguments import as_void, check_choice, check_positive_integer, check_seed
from keras_fcn.datasets.augmentation import Augmentation, check_augmentation
from keras_fcn.datasets.catalogue import SOURCES, open_source, resolve_source
from keras_fcn.datasets.check import check_sample
from keras_fcn.datasets.files import FileError, read_pair
from keras_fcn.datasets.folder import find_pairs
from keras_fcn.datasets.images import count_bands

if TYPE_CHECKING:
    import tensorflow as tf

FOLDER_OPTIONS = (
    "colors",
    "values",
    "white",
    "split_seed",
    "mask_suffix",
    "instances",
    "max_pixels",
)
SHUFFLE_BUFFER = 512  # elements, where the files cannot be shuffled by name
AHEAD = 2  # elements, or batches, that are made before they are asked for


def load(
    source: str | os.PathLike | tuple,
    split: str | Sequence[str],
    *,
    batch_size: int | None = None,
    crop_size: int | None = None,
    shuffle: bool = False,
    augment: Augmentation | None = None,
    seed: int | None = None,
    cache: bool = False,
    deterministic: bool = True,
    ignore: int | None = None,
    **options,
) -> "tf.data.Dataset":
    """Load images and label maps.

    Args:
        source: a name of `SOURCES`, as "camvid" or "shapes/cells", or a folder of
            images and masks, as "./camvid", or a pair of folders (images, masks). A
            folder has one of the layouts of `keras_fcn.datasets.folder.LAYOUTS`; all
            its names, and a sample of its files, are checked as by `check_data`.
        split: as in TFDS, for example "train" or "train[:90%]". For folders the
            names of the splits are those of the subfolders, or "all", as in
            "all[:80%]"; or a file list: names, or the path of a text file with
            one name a line.
        batch_size: images in a batch; by default they are not batched. The last
            batch may be smaller.
        crop_size: side of the square cut out of each image, at random places with
            `shuffle=True`, else in the middle; smaller images are padded. By default
            images stay whole, and those of a batch are padded to its largest height
            and width. Padding, below and to the right, has pixels 0 and the ignore
            label.
        shuffle: whether to give the images in another random order, and crop them at
            other random places, each time that the dataset is iterated. Sources of
            TFDS with more than 512 images are shuffled within a window of 512.
        augment: an `Augmentation`, applied to each image before it is cropped.
        seed: integer, from which order, crops and augmentation follow; by default
            they are different in every run.
        cache: whether to keep the decoded images in memory.
        deterministic: whether the order must be the same in every run with the same
            seed; False lets fast elements pass slow ones.
        ignore: the label of void pixels; by default that of the source, 255 for
            folders.
        **options: for folders `colors`, `values`, `white`, `instances` and
            `max_pixels` (see `keras_fcn.datasets.files.read_pair`), `mask_suffix` and
            `split_seed` (see `find_pairs`). For names `data_dir`, where TFDS keeps its
            files, and `manual_dir`, where the files lie that you have downloaded; TFDS
            reads them once, and keeps to its own copy from then on. For names with
            instance maps `instances`, too: with "numbers" the second tensor is the
            instance map, int32, and padding has the number 0.

    Returns:
        `tf.data.Dataset` of images, uint8 `(height, width, channels)`, and label
        maps, int32 `(height, width)`; with a leading batch dimension if
        `batch_size` is given. Images have the channels that the files have; gray and
        RGB ones together become RGB.

    Raises:
        ValueError: when an argument, a split or a file breaks a rule; the message
            says which, and the remedy.
        FileNotFoundError: when a folder or file does not exist.
        ImportError: when a name is given and `tensorflow-datasets` is not installed.

    Example:

    >>> from keras_fcn import datasets
    >>> dataset = datasets.load(
    ...     "shapes/cells", "train[:80%]", batch_size=4, crop_size=64, shuffle=True, seed=0,
    ...     augment=datasets.Augmentation(rotation=180, elastic=10),
    ... )  # doctest: +SKIP
    >>> dataset.element_spec  # doctest: +SKIP
    (TensorSpec(shape=(None, 64, 64, 1), dtype=tf.uint8, name=None),
     TensorSpec(shape=(None, 64, 64), dtype=tf.int32, name=None))
    """
    import tensorflow as tf

    for name, value in (("batch_size", batch_size), ("crop_size", crop_size)):
        if value is not None:
            check_positive_integer(name, value)
    check_augmentation(augment)
    seed, ignore = check_seed("seed", seed), as_void("ignore", ignore)
    dataset, read, count, own_ignore, _ = _open(source, split, ignore, options)
    ignore = own_ignore if ignore is None else ignore
    calls = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": deterministic}

    if shuffle and not cache:
        dataset = dataset.shuffle(count, seed)
    dataset = dataset.map(read, **calls)
    if cache:
        dataset = dataset.cache()
        if shuffle:
            dataset = dataset.shuffle(count, seed)  # of what is in memory already
    if crop_size or augment:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        random_crop = bool(shuffle)

        @tf.autograph.experimental.do_not_convert
        def transform(pair, seed):
            return _transform(*pair, seed, crop_size, random_crop, augment, ignore)

        dataset = tf.data.Dataset.zip(dataset, seeds).map(transform, **calls)
    if batch_size and crop_size:
        dataset = dataset.batch(batch_size)
    elif batch_size:
        padding = (tf.constant(0, "uint8"), tf.constant(ignore, "int32"))
        dataset = dataset.padded_batch(batch_size, padding_values=padding)
    return dataset.prefetch(AHEAD)


def add_border_weights(
    dataset: "tf.data.Dataset", ignore: int | None = 255, instances: str | None = None, **options
) -> "tf.data.Dataset":
    """Add the U-Net paper's border weights to a dataset, as sample weights for `fit`.

    They are computed from the label maps as they come, cropped and augmented, so
    the borders that count are those that the network sees. Objects that touch are
    told apart where the labels are their numbers; in a map of two classes a connected
    piece is one object.

    Args:
        dataset: `tf.data.Dataset` of images and label maps, as `load` gives it,
            batched or not.
        ignore: the label of void pixels, which get the weight 0.
        instances: of a dataset of `load(..., instances="numbers")`: the label maps to
            give, "two" or "border" (see
            `keras_fcn.datasets.masks.label_instances`); no pixel is then void.
        **options: `w0`, `sigma` and `class_weights` of
            `keras_fcn.losses.border_weights`.

    Returns:
        `tf.data.Dataset` of images, label maps and float32 weights of the shape of
        the label maps.

    Source: Ronneberger et al., U-Net, 2015, section 3, equation 2.

    Example:

    >>> from keras_fcn import datasets
    >>> dataset = datasets.load("shapes/cells", "train", batch_size=2)  # doctest: +SKIP
    >>> model.fit(datasets.add_border_weights(dataset))  # doctest: +SKIP
    """
    import tensorflow as tf

    from keras_fcn.datasets.masks import label_instances
    from keras_fcn.losses import border_weights

    if instances is not None:
        ignore = None  # 255 is an object like others
        check_choice("instances", instances, ("two", "border"))

    def weigh(labels):
        void = np.equal(labels, -1 if ignore is None else ignore)
        cells = np.where(void, 0, labels).reshape(-1, *labels.shape[-2:])  # (batch or 1, H, W)
        weights = np.stack([border_weights(cell_map, **options) for cell_map in cells])
        if instances is not None:
            labels = np.stack([label_instances(cell_map, instances) for cell_map in cells])
        weights = np.where(void, 0, weights.reshape(void.shape)).astype("float32")
        return labels.reshape(void.shape), weights

    def add(image, labels):
        given, weights = tf.numpy_function(weigh, (labels,), (tf.int32, tf.float32), stateful=False)
        shape = labels.shape
        return image, tf.ensure_shape(given, shape), tf.ensure_shape(weights, shape)

    calls = {"num_parallel_calls": tf.data.AUTOTUNE}
    return dataset.map(add, **calls).prefetch(AHEAD)


def ending_at_once(dataset):
    """Return a dataset whose iterators end at once, and those of what is made of it.

    The thread by which TensorFlow tunes an iterator sleeps for ever longer, up to a minute, and
    who drops the iterator waits for it: a process that was told to end, or the next trial of a
    search. Without it as many elements are made at once as there are cores, 16 at most.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _open(source, split, ignore, options):
    """Open a split of a data set by name, or of a folder.

    Returns:
        The undecoded dataset, its decoder, how many to shuffle, the ignore label, and a function
        that gives the places of the images.
    """
    found = resolve_source(source)
    numbers = options.get("instances") == "numbers"  # of which 255 is one
    if isinstance(found, str):
        _check_options(source, options, ("data_dir", "manual_dir", "instances"))
        dataset, read, count, places = open_source(found, split, **options)
        own = SOURCES[found.partition("/")[0]].ignore
        count = min(count, SHUFFLE_BUFFER)
        return ending_at_once(dataset), read, count, 0 if numbers else own, places
    _check_options(source, options, FOLDER_OPTIONS)
    dataset, read, count, places = _open_folder(found, split, ignore=ignore, **options)
    return ending_at_once(dataset), read, count, 0 if numbers else 255, places


def _open_folder(source, split, ignore=None, split_seed=None, mask_suffix=None, **reading):
    """Open a split of a folder.

    Args:
        source, split, split_seed, mask_suffix: as in `keras_fcn.datasets.folder.find_pairs`.
        ignore: the label of void pixels, if it is known.
        **reading: `colors`, `values`, `white`, `instances` and `max_pixels` of
            `read_pair`.

    Returns:
        `tf.data.Dataset` of the numbers of the pairs; a function of such a number that
        gives (image, label map); how many they are; and a function that gives the set of the
        images' paths.
    """
    import tensorflow as tf

    listing = find_pairs(source, split, split_seed, mask_suffix)
    pairs = listing.pairs
    check_sample(listing, ignore=ignore, **reading)
    channels = _count_channels(pairs, reading.get("max_pixels"))

    def read(number):
        image, labels = tf.numpy_function(
            lambda number: read_pair(*pairs[number], channels, **reading),
            (number,),
            (tf.uint8, tf.int32),
            stateful=False,
        )
        return tf.ensure_shape(image, (None, None, channels)), tf.ensure_shape(labels, (None, None))

    return tf.data.Dataset.range(len(pairs)), read, len(pairs), lambda: {path for path, _ in pairs}


def _count_channels(pairs, max_pixels):
    """Return the bands that all images have, 3 where some are gray; reads the headers only."""
    found = {}
    for path, _ in pairs:
        found.setdefault(count_bands(path, max_pixels), path)
    if set(found) == {1, 3}:
        return 3
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise FileError("bands", second, f"{other} bands, and {one} in '{first}'")
    return next(iter(found))


def _check_options(source, options, known):
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"Besides the named arguments, {source!r} takes {', '.join(known)}. Received: "
            f"{', '.join(unknown)}"
        )


def _transform(image, labels, seed, crop_size, random_crop, augment, ignore):
    """Crop and augment one image (H, W, C) and its label map (H, W)."""
    import tensorflow as tf

    crop_seed, augment_seed = tf.unstack(tf.random.split(tf.cast(seed, "int32"), 2))
    if crop_size is None:
        return augment(image, labels, augment_seed, ignore)
    margin = augment.margin(crop_size) if augment else 0
    crop = _crop_offsets(tf.shape(labels), crop_size, crop_seed if random_crop else None)
    image = _cut(image, crop, crop_size, margin, 0)
    labels = _cut(labels[..., None], crop, crop_size, margin, ignore)[..., 0]
    if augment:
        image, labels = augment(image, labels, augment_seed, ignore, margin)
        image = tf.ensure_shape(image, (crop_size, crop_size, None))
        labels = tf.ensure_shape(labels, (crop_size, crop_size))
    return image, labels


def _crop_offsets(size, crop_size, seed):
    """Return the top left corner of a crop: random, or without a seed central."""
    import tensorflow as tf

    room = tf.maximum(size - crop_size, 0)
    if seed is None:
        return room // 2
    places = tf.random.stateless_uniform((2,), seed) * tf.cast(room + 1, "float32")
    return tf.minimum(tf.cast(places, "int32"), room)


def _cut(pixels, corner, crop_size, margin, fill):
    """Return a crop of (H, W, C) with a margin around, filled where nothing is."""
    import tensorflow as tf

    size = tf.shape(pixels)[:2]
    start, stop = corner - margin, corner + crop_size + margin
    top, left = tf.unstack(tf.maximum(start, 0))
    bottom, right = tf.unstack(tf.minimum(stop, size))
    padding = tf.stack([tf.maximum(-start, 0), tf.maximum(stop - size, 0)], 1)  # (2, 2)
    padding = tf.concat([padding, [[0, 0]]], 0)
    cut = tf.pad(pixels[top:bottom, left:right], padding, constant_values=fill)
    side = crop_size + 2 * margin
    return tf.ensure_shape(cut, (side, side, pixels.shape[-1]))
