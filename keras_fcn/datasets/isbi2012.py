"""ISBI 2012, membranes of nerve cells, as a TFDS builder from a local folder."""

import numpy as np
import tensorflow_datasets as tfds

from keras_fcn.datasets.camvid import check_listing, find_manual_folder
from keras_fcn.datasets.catalogue import SOURCES
from keras_fcn.datasets.files import list_files, read_pair

CITATION = """
@article{argandacarreras2015crowdsourcing,
  title={Crowdsourcing the creation of image segmentation algorithms for connectomics},
  author={Arganda-Carreras, Ignacio and Turaga, Srinivas C. and Berger, Daniel R. and others},
  journal={Frontiers in Neuroanatomy},
  volume={9},
  pages={142},
  year={2015}
}
@article{cardona2010integrated,
  title={An integrated micro- and macroarchitectural analysis of the Drosophila brain by
         computer-assisted serial section electron microscopy},
  author={Cardona, Albert and Saalfeld, Stephan and Preibisch, Stephan and others},
  journal={PLoS Biology},
  volume={8},
  number={10},
  year={2010}
}
"""
STACKS = ("train-volume.tif", "train-labels.tif")
LABELS = {0: 0, 255: 1}  # in the files: class


class Isbi2012(tfds.core.GeneratorBasedBuilder):
    """ISBI 2012: slices of 512 x 512 pixels, class 0 membrane, class 1 cell."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Register at https://imagej.net/events/isbi-2012-segmentation-challenge, fetch
    train-volume.tif and train-labels.tif, and pass their folder as `manual_dir`, or move them to
    <manual_dir>/isbi2012. A folder with the slices as image/0.png, label/0.png and so on will do
    as well.
    """

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Serial section transmission electron microscopy of the ventral nerve cord "
            "of a first instar Drosophila larva, 4 x 4 x 50 nm a voxel, with the membranes between "
            "the cells. Slices are in their order, so that `train[:20]` are the first 20.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=list(SOURCES["isbi2012"].classes),
                        shape=(None, None, 1),
                        encoding_format="png",
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
            citation=CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        try:
            folder = find_manual_folder(dl_manager, "isbi2012", STACKS)
        except FileNotFoundError:
            folder = find_manual_folder(dl_manager, "isbi2012", ("image", "label"))
        return {"train": self._generate_examples(folder)}

    def _generate_examples(self, folder):
        slices = _read_stacks if (folder / STACKS[0]).exists() else _read_slices
        for number, (name, image, label) in enumerate(slices(folder)):
            label = label.astype("uint8")[..., None]
            yield number, {"image": image, "label": label, "name": name}


def _read_slices(folder):
    """Yield name, image (H, W, 1) and classes (H, W) of files image/N.png and label/N.png."""
    for paths in check_listing(list_files(folder / "image", folder / "label")):
        yield paths[0].stem, *read_pair(*paths, channels=1, values=LABELS)


def _read_stacks(folder):
    """Yield name, image (H, W, 1) and classes (H, W) of the pages of two TIFF files."""
    from PIL import Image, ImageSequence

    with Image.open(folder / STACKS[0]) as images, Image.open(folder / STACKS[1]) as labels:
        if images.n_frames != labels.n_frames:
            raise ValueError(
                f"Both stacks should have the same pages. Received: {images.n_frames} and "
                f"{labels.n_frames} in '{folder}'. Fetch the files again."
            )
        pages = zip(ImageSequence.Iterator(images), ImageSequence.Iterator(labels), strict=True)
        for number, (image, label) in enumerate(pages):
            label = np.asarray(label.convert("L"))
            if not np.isin(label, list(LABELS)).all():
                raise ValueError(
                    f"Labels should be 0 or 255. Received: {np.unique(label)[:5]} on page {number} "
                    f"of '{folder / STACKS[1]}'. Fetch the file again."
                )
            yield str(number), np.asarray(image.convert("L"))[..., None], label > 0
