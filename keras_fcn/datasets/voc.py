"""PASCAL VOC segmentation, 2011 and 2012, as a TFDS builder from a local VOCdevkit."""

import dataclasses
from pathlib import Path

import tensorflow_datasets as tfds

from keras_fcn.datasets.camvid import find_manual_folder
from keras_fcn.datasets.catalogue import VOC_CLASSES
from keras_fcn.datasets.files import read_pair

SEG11VALID = 736  # images
SBD_LISTS = ("sbd_train.txt", "SBD/dataset/train.txt", "benchmark_RELEASE/dataset/train.txt")
CITATION = """
@article{everingham2010pascal,
  title={The {PASCAL} visual object classes ({VOC}) challenge},
  author={Everingham, Mark and Van Gool, Luc and Williams, Christopher K. I. and Winn, John and
          Zisserman, Andrew},
  journal={International Journal of Computer Vision},
  volume={88},
  number={2},
  pages={303--338},
  year={2010}
}
@inproceedings{hariharan2011semantic,
  title={Semantic contours from inverse detectors},
  author={Hariharan, Bharath and Arbelaez, Pablo and Bourdev, Lubomir and Maji, Subhransu and
          Malik, Jitendra},
  booktitle={International Conference on Computer Vision},
  year={2011}
}
"""


@dataclasses.dataclass
class VocConfig(tfds.core.BuilderConfig):
    """The year of the challenge."""

    year: int = 2012


class VocSegmentation(tfds.core.GeneratorBasedBuilder):
    """PASCAL VOC segmentation: 21 classes, 0 = background, 255 = void."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        VocConfig(name="2012", description="VOC2012: train, val.", year=2012),
        VocConfig(
            name="2011",
            description="VOC2011: train, val, and seg11valid, on which the FCN paper reports.",
            year=2011,
        ),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Fetch the training and validation data of the year at http://host.robots.ox.ac.uk/pascal/VOC/,
    and pass the folder VOCdevkit, which holds VOC2012 or VOC2011, as `manual_dir`, or move it to
    <manual_dir>/VOCdevkit. The split seg11valid of 2011 needs the training list of SBD beside
    VOC2011, as sbd_train.txt: `dataset/train.txt` of benchmark.tgz at
    http://home.bharathh.info/pubs/codes/SBD/download.html.
    """

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs with 20 kinds of objects and background, and the class of "
            "each pixel; 255 marks the outlines and what is hard to tell, which neither train nor "
            "count. In the order of the development kit's lists.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.LabeledImage(
                        labels=list(VOC_CLASSES), shape=(None, None, 1), encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{self.builder_config.year}/",
            citation=CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        year = f"VOC{self.builder_config.year}"
        members = (f"{year}/JPEGImages", f"{year}/SegmentationClass", f"{year}/ImageSets")
        devkit = find_manual_folder(dl_manager, "VOCdevkit", members)
        folder = devkit / year
        lists = {
            split: read_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt")
            for split in ("train", "val")
        }
        sbd = next((devkit / name for name in SBD_LISTS if (devkit / name).exists()), None)
        if self.builder_config.year == 2011 and sbd is not None:
            lists["seg11valid"] = seg11valid(lists["val"], read_list(sbd))
        return {split: self._generate_examples(folder, names) for split, names in lists.items()}

    def _generate_examples(self, folder, names):
        for number, name in enumerate(names):
            image = folder / "JPEGImages" / f"{name}.jpg"
            _, labels = read_pair(image, folder / "SegmentationClass" / f"{name}.png")
            yield number, {"image": image, "label": labels.astype("uint8")[..., None], "name": name}


def read_list(path):
    """Return the names in a list of the development kit or of SBD, one a line."""
    return Path(path).read_text().split()


def seg11valid(val, sbd_train):
    """Return the images on which the FCN paper reports: VOC2011 val without SBD train.

    SBD labels more images of VOC2011, and some of the validation images are in its
    training list; the FCN authors train on that list.

    Args:
        val: names of VOC2011's segmentation validation images.
        sbd_train: names of SBD's training images.

    Returns:
        list of names, in the order of `val`.

    Raises:
        ValueError: when they are not 736, the number of the authors' list: then
            one of the lists is another one.

    Source: Long, Shelhamer & Darrell, Fully convolutional networks for semantic
    segmentation, 2015, section 4; `data/pascal/seg11valid.txt` of the authors' code.
    """
    names = [name for name in val if name not in set(sbd_train)]
    if len(names) != SEG11VALID:
        raise ValueError(
            f"VOC2011's segmentation val without SBD's train should be {SEG11VALID} images. "
            f"Received: {len(val)} names of val and {len(sbd_train)} of SBD, which leave "
            f"{len(names)}. Use VOC2011's val.txt and SBD's train.txt (8498 names)."
        )
    return names


def check_disjoint(valid, train):
    """Raise `ValueError` if images for validation occur among those for training.

    Args:
        valid: names of the images to validate on, for example seg11valid.
        train: names of the images to train on, for example SBD's.

    Example:

    >>> check_disjoint(["2007_000033"], ["2007_000032"])
    """
    common = sorted(set(valid) & set(train))
    if common:
        raise ValueError(
            "No image should be both trained and validated on. Received: "
            f"{len(common)} images in both lists, as {common[:3]}. Take them out of the training "
            "list; the split seg11valid leaves SBD's training images out."
        )
