"""BBBC038, nuclei of the 2018 Data Science Bowl, as a TFDS builder from a local folder."""

import numpy as np
import tensorflow_datasets as tfds

from keras_fcn.datasets.camvid import check_listing, find_manual_folder
from keras_fcn.datasets.catalogue import SOURCES
from keras_fcn.datasets.files import list_files
from keras_fcn.datasets.folder import list_source
from keras_fcn.datasets.images import read_image
from keras_fcn.datasets.masks import BORDER, label_instances, read_instances

FOLDS = 5  # one of which validates
SEED = 38  # of the choice which
CITATION = """
@article{caicedo2019nucleus,
  title={Nucleus segmentation across imaging experiments: the 2018 {Data Science Bowl}},
  author={Caicedo, Juan C. and Goodman, Allen and Karhohs, Kyle W. and others},
  journal={Nature Methods},
  volume={16},
  pages={1247--1253},
  year={2019}
}
@article{ljosa2012annotated,
  title={Annotated high-throughput microscopy image sets for validation},
  author={Ljosa, Vebjorn and Sokolnicki, Katherine L. and Carpenter, Anne E.},
  journal={Nature Methods},
  volume={9},
  pages={637},
  year={2012}
}
"""


class Nuclei(tfds.core.GeneratorBasedBuilder):
    """BBBC038: nuclei under mixed microscopes, with the number of the nucleus of each pixel."""

    VERSION = tfds.core.Version("1.1.0")  # in 1.0.0, gaps between nuclei were border, too
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(
            name="border",
            description="Class 0 background, 1 nucleus, 2 border: what of a "
            f"nucleus is within {BORDER} pixels of another, which keeps them apart.",
        ),
        tfds.core.BuilderConfig(name="two", description="Class 0 background, 1 nucleus."),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Fetch stage1_train.zip of image set BBBC038 of the Broad Bioimage Benchmark Collection at
    https://bbbc.broadinstitute.org/BBBC038 (public domain, CC0), unpack it into a folder
    stage1_train, and pass the folder that holds it as `manual_dir`, or move it to
    <manual_dir>/nuclei. It holds NAME/images/NAME.png and a file of NAME/masks for each nucleus.
    A folder with images/NAME.png and instances/NAME.png, where an instance map has 16 bits a
    pixel, 0 background, else the number of the nucleus, will do as well.
    """

    def _info(self):
        classes = SOURCES["nuclei"].classes[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Stage 1 of the 2018 Data Science Bowl: fluorescent and stained nuclei of "
            "several organisms under several microscopes, gray ones as three equal channels. A "
            "fixed fifth of the images validates; which, is drawn by image size, which stands for "
            "the microscope. Images are in order of name, which is random.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=list(classes), shape=(None, None, 1), encoding_format="png"
                    ),
                    "instances": tfds.features.Image(
                        shape=(None, None, 1), dtype=np.uint16, encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://bbbc.broadinstitute.org/BBBC038",
            citation=CITATION,
            license="CC0 1.0",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        try:
            folder = find_manual_folder(dl_manager, "nuclei", ("stage1_train",)) / "stage1_train"
            pairs = check_listing(list_source(folder))
        except FileNotFoundError:
            folder = find_manual_folder(dl_manager, "nuclei", ("images", "instances"))
            pairs = check_listing(list_files(folder / "images", folder / "instances"))
        validation = validation_images([_size(image) for image, _ in pairs])
        return {
            "train": self._generate_examples(pairs, ~validation),
            "val": self._generate_examples(pairs, validation),
        }

    def _generate_examples(self, pairs, chosen):
        for number in np.flatnonzero(chosen).tolist():
            image, instances = pairs[number]
            instance_map = read_instances(instances)
            labels = label_instances(instance_map, self.builder_config.name).astype("uint8")
            yield (
                number,
                {
                    "image": read_image(image, 3),
                    "label": labels[..., None],
                    "instances": instance_map.astype("uint16")[..., None],
                    "name": image.stem,
                },
            )


def validation_images(sizes):
    """Choose one image of five, and of each size one of five, in the same way each time.

    Args:
        sizes: list of `(height, width)`, of the images in order of name.

    Returns:
        boolean array, True for the images to validate on.

    Example:

    >>> int(validation_images([(256, 256)] * 10).sum())
    2
    """
    heights, widths = np.reshape(sizes, (-1, 2)).T
    draw = np.random.default_rng(SEED).permutation(len(sizes))
    order = np.lexsort((draw, widths, heights))  # by size, within a size as drawn
    chosen = np.zeros(len(sizes), bool)
    chosen[order[FOLDS // 2 :: FOLDS]] = True
    return chosen


def _size(path):
    from PIL import Image

    with Image.open(path) as picture:
        return picture.height, picture.width
