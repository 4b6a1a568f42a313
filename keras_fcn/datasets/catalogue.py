"""The data sets of TFDS, this package's own and others', as sources of `load`."""

import dataclasses
import importlib
from collections.abc import Callable

from keras_fcn.arguments import suggest

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


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: its classes, its ignore label, and how its features become a label map."""

    classes: tuple | dict  # names, or names by configuration, of which the first is the default
    ignore: int
    module: str | None = None  # the module of this package that registers it with TFDS
    image: str = "image"
    label: str = "label"
    to_labels: Callable = _same  # int32 (H, W), of the first channel, to the same


SOURCES = {
    "camvid": Source(CAMVID_CLASSES, 11, "camvid"),
    "isbi2012": Source(("membrane", "cell"), 255, "isbi2012"),
    "nuclei": Source(
        {"border": ("background", "nucleus", "border"), "two": ("background", "nucleus")},
        255,
        "nuclei",
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


def open_source(name, split, data_dir=None, manual_dir=None):
    """Return a split as a dataset of encoded images, the function that decodes one, and its size.

    Args:
        name: a key of `SOURCES`, with "/" and a configuration where it has some.
        split: split of TFDS, as "train[:90%]".
        data_dir: where TFDS keeps its files; by default its own folder.
        manual_dir: the folder with the files that the user has downloaded. It is read
            once; what TFDS has prepared in `data_dir` is used from then on.

    Returns:
        `tf.data.Dataset`, a function of its elements that gives (image, label map),
        and an integer.

    Raises:
        ImportError: when `tensorflow-datasets` is not installed.
        FileNotFoundError: when files are missing that the user fetches; it says where
            from and where to.
    """
    import tensorflow as tf

    tfds = import_tfds()
    source = SOURCES[name.partition("/")[0]]
    if source.module:
        importlib.import_module(f"keras_fcn.datasets.{source.module}")
    builder = tfds.builder(name, data_dir=data_dir)
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    except AssertionError as error:  # of TFDS, when files that the user fetches are missing
        raise FileNotFoundError(str(error)) from error
    encoded = {key: tfds.decode.SkipDecoding() for key in (source.image, source.label)}
    dataset = builder.as_dataset(split=split, decoders=encoded)
    features = builder.info.features

    def read(example):
        image = features[source.image].decode_example(example[source.image])
        labels = features[source.label].decode_example(example[source.label])[..., 0]
        return image, source.to_labels(tf.cast(labels, "int32"))

    dataset = dataset.map(
        lambda example: {name: example[name] for name in (source.image, source.label)}
    )
    return dataset, read, max(1, int(dataset.cardinality()))


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


def raise_unknown(name):
    """Raise for a source that is neither a folder nor a name."""
    raise FileNotFoundError(
        f"`source` should be a folder or one of {', '.join(SOURCES)}. Received: "
        f"source={name!r}.{suggest(name, list(SOURCES))}"
    )
