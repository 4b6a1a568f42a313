"""The data sets of TFDS, this package's own and others', as sources of `load`."""

import dataclasses
import functools
import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from keras_fcn.arguments import suggest
from keras_fcn.atomic import telling_full
from keras_fcn.remedies import choose, given, spell

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
# name and number in the label files, in the order of the 19 training classes
CITYSCAPES_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


def _same(labels):
    return labels


def _pet_labels(trimap):
    """1 pet, 2 background, 3 border in the files."""
    return trimap - 1


def _cityscapes_labels(labels):
    """Numbers outside the 19 training classes are void."""
    import tensorflow as tf

    table = [255] * 256
    for label, number in enumerate(CITYSCAPES_IDS.values()):
        table[number] = label
    return tf.gather(tf.constant(table), labels)


def _scene_labels(annotation):
    """Red is the category, from 1; 0 belongs to none."""
    import tensorflow as tf

    return tf.where(annotation == 0, 255, annotation - 1)


# What says how the files of a folder are read.
FILE_OPTIONS = ("values", "colors", "mask_suffix", "white", "max_pixels")


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its classes, its ignore label, and how its features become a label map."""

    classes: tuple | dict  # names, or names by configuration, of which the first is the default
    ignore: int
    module: str | None = None  # the module of this package that registers it with TFDS
    image: str = "image"
    label: str = "label"
    to_labels: Callable = _same  # int32 (H, W), of the first channel, to the same
    instances: str | None = None  # the feature that numbers objects


SOURCES = {
    "camvid": Source(CAMVID_CLASSES, 11, "camvid"),
    "isbi2012": Source(("membrane", "cell"), 255, "isbi2012"),
    "nuclei": Source(
        {"border": ("background", "nucleus", "border"), "two": ("background", "nucleus")},
        255,
        "nuclei",
        instances="instances",
    ),
    "shapes": Source(
        {"cells": ("border", "cell"), "street": ("sky", "building", "tree", "road", "car")},
        255,
        "shapes",
    ),
    "voc_segmentation": Source(VOC_CLASSES, 255, "voc"),
    "oxford_iiit_pet": Source(
        ("pet", "background", "border"), 255, label="segmentation_mask", to_labels=_pet_labels
    ),
    "cityscapes": Source(
        tuple(CITYSCAPES_IDS),
        255,
        image="image_left",
        label="segmentation_label",
        to_labels=_cityscapes_labels,
    ),
    # TFDS 4.9 packs the annotations of the instance challenge: 100 kinds of things, no stuff
    "scene_parse150": Source(
        tuple(f"category {number}" for number in range(1, 101)),
        255,
        label="annotation",
        to_labels=_scene_labels,
    ),
}
"""The data sets that have a name, dict of name and `Source`: `classes`, their names, or a dict of
those by configuration, of which the first is the default, and `ignore`, the label of void."""


def open_source(name, split, data_dir=None, manual_dir=None, instances=None):
    """Open a split of a data set.

    Args:
        name: a key of `SOURCES`, with "/" and a configuration where it has some.
        split: split of TFDS, as "train[:90%]".
        data_dir: where TFDS keeps its files; by default its own folder.
        manual_dir: the folder with the files that the user has downloaded. It is read
            once; what TFDS has prepared in `data_dir` is used from then on.
        instances: as in `keras_fcn.datasets.masks.read_labels`, of the data set's
            instance maps; by default the labels are its classes.

    Returns:
        `tf.data.Dataset` of encoded images; the function that decodes one, to (image, label
        map); how many they are; and a function that gives the set of the places where they lie.

    Raises:
        ImportError: when `tensorflow-datasets` is not installed.
        FileNotFoundError: when files are missing that the user fetches; it says where
            from and where to.
        ValueError: when `instances` is given and the data set has none.
    """
    tfds = import_tfds()
    source = SOURCES[name.partition("/")[0]]
    label = source.label if instances is None else source.instances
    if label is None:
        having = [name for name, source in SOURCES.items() if source.instances]
        raise ValueError(
            f"Of the data sets, {', '.join(having)} numbers objects. Received: '{name}' with "
            f"{spell('instances', instances)}. Leave it out."
        )
    builder = _prepared(name, data_dir, manual_dir)
    encoded = {key: tfds.decode.SkipDecoding() for key in (source.image, label)}
    try:
        dataset = builder.as_dataset(split=split, decoders=encoded)
    except ValueError as error:
        if "no data" not in str(error):
            raise
        raise ValueError(
            f"A split should have at least one image. Received: {name!r}, {given('split', split)}. "
            "Choose a larger part."
        ) from error
    dataset = dataset.map(lambda example: {name: example[name] for name in (source.image, label)})
    read = _reader(builder.info.features, source, label, instances)
    places = functools.partial(_places, builder, split)
    return dataset, read, max(1, int(dataset.cardinality())), places


def split_names(name: str) -> list[str]:
    """Return the names of the splits of a data set, which is prepared for it."""
    return list(_prepared(name).info.splits)


def _prepared(name, data_dir=None, manual_dir=None):
    """Return the builder of a data set whose files TFDS has made."""
    tfds = import_tfds()
    source = SOURCES[name.partition("/")[0]]
    if source.module:
        importlib.import_module(f"keras_fcn.datasets.{source.module}")
    _check_configuration(tfds, name)
    builder = tfds.builder(name, data_dir=data_dir)
    try:
        with telling_full(builder.data_dir, builder.data_dir):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
    except AssertionError as error:  # of TFDS, when files that the user fetches are missing
        raise FileNotFoundError(str(error)) from error
    return builder


def _places(builder, split):
    """Return where the images of a split lie: a set of pairs of a file and a number in it."""
    parts = builder.info.splits[split].file_instructions
    return {(part.filename, part.skip + n) for part in parts for n in range(part.take)}


def _check_configuration(tfds, name):
    """Raise for a configuration that a data set has not, of which TFDS tells in many lines."""
    name, _, configuration = name.partition("/")
    known = [config.name for config in tfds.builder_cls(name).BUILDER_CONFIGS]
    if configuration and configuration.partition("/")[0] not in known:
        raise ValueError(
            f"The data set {name!r} has the configurations {', '.join(known) or 'none'}. Received: "
            f"{name}/{configuration}.{suggest(configuration, known)}"
        )


def _reader(features, source, label, instances):
    """Return the function that decodes an example."""
    import tensorflow as tf

    from keras_fcn.datasets.masks import label_instances

    def read(example):
        image = features[source.image].decode_example(example[source.image])
        labels = tf.cast(features[label].decode_example(example[label])[..., 0], "int32")
        if instances is None:
            return image, source.to_labels(labels)
        classes = tf.numpy_function(
            lambda numbers: label_instances(numbers, instances), (labels,), tf.int32, stateful=False
        )
        return image, tf.ensure_shape(classes, (None, None))

    return read


def import_tfds():
    """Return the module `tensorflow_datasets`."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "The data sets with a name come through TensorFlow Datasets. Run "
            "`pip install tensorflow-datasets`, or load a folder of images and masks."
        ) from error
    return tfds


def refuse_file_options(name: str, options: dict) -> None:
    """Raise for options of how files are read, which a data set by name has no use for.

    Args:
        name: of the data set.
        options: {name: value}; None for what is not given.

    Raises:
        ValueError: naming them.
    """
    given = [option for option in FILE_OPTIONS if options.get(option) is not None]
    if given:
        names = ", ".join(map(spell, given))
        raise ValueError(
            f"Options of how files are read are for folders. Received: {names} with the data set "
            f"{name!r}, which says itself what its files hold. Leave {names} out, or pass the "
            "folder of the files."
        )


def resolve_source(
    source: str | os.PathLike | tuple,
) -> str | Path | tuple[Path, ...]:
    """Tell whether a source is a data set's name or a folder.

    A name of `SOURCES` is the data set, also where a folder of that name lies in the
    working directory; a path is written so that it can't be a name, as "./camvid", or
    given as `pathlib.Path`.

    Args:
        source: name, folder, or pair of folders (images, masks).

    Returns:
        str, the name of a data set; or `pathlib.Path` of a folder, or a tuple of two.

    Raises:
        FileNotFoundError: when it is neither; it suggests the nearest name.

    Warns:
        UserWarning: when a data set and a folder bear the name.

    Example:

    >>> resolve_source("camvid")
    'camvid'
    """
    if isinstance(source, (tuple, list)):
        return tuple(Path(folder) for folder in source)
    if isinstance(source, str) and source.partition("/")[0] in SOURCES:
        if Path(source).is_dir():
            warnings.warn(
                f"'{source}' names a data set and a folder that is here; the data set is taken. "
                f"For the folder write './{source}'.",
                stacklevel=2,
            )
        return source
    if not Path(source).exists():
        raise FileNotFoundError(
            f"{choose('`source`', '`--data`')} should be a folder or one of {', '.join(SOURCES)}. "
            f"Received: {str(source)!r}, and there is no such folder."
            f"{suggest(str(source), list(SOURCES))}"
        )
    return Path(source)
