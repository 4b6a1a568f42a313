"""What is trained, on what, and how: checked before a run begins."""

import dataclasses
import json
from pathlib import Path

from keras_fcn.arguments import check_choice, check_positive_integer
from keras_fcn.cards import pretrained
from keras_fcn.datasets import Augmentation
from keras_fcn.unet import UPSAMPLINGS

FACTORIES = {
    "unet": "UNet",
    "fcn32s": "FCN32s",
    "fcn16s": "FCN16s",
    "fcn8s": "FCN8s",
    "fcn8s_at_once": "FCN8sAtOnce",
}
OPTIMIZERS = ("adamw", "muon", "sgd")
CLASS_WEIGHTS = ("log", "none")
AUGMENTATION = Augmentation(flip="horizontal", scale=0.25, contrast=0.2, brightness=0.1)
MOMENTUM = 0.99  # of SGD, in both papers


@dataclasses.dataclass(frozen=True)
class Task:
    """What to learn from: the data, the batches made of it, and how many.

    Args:
        data: a folder of images and masks, or a name, as in `keras_fcn.datasets.load`.
        split, validation: splits to train and to validate on, as in `load`.
        num_classes: number of classes; by default that of the data set, for a folder
            the largest label of the training masks plus one.
        ignore: the label of void pixels; by default that of the data set, 255 for
            folders.
        values, colors: what the pixels of the masks stand for, for folders, as in
            `keras_fcn.datasets.files.read_mask`.
        crop_size: side of the random crops to train on. Validation is on whole images.
        batch_size: images in a batch, over all devices.
        augment: an `Augmentation`, or None.
        epochs: how often to validate and save.
        steps: batches in an epoch; by default as many as give each image once.
        seed: of the weights, the order of the images, crops and augmentation.

    Raises:
        ValueError: for an argument out of its range.

    Example:

    >>> Task("shapes/cells", crop_size=96).parameters["crop_size"]
    96
    """

    data: str
    split: str = "train"
    validation: str = "val"
    num_classes: int | None = None
    ignore: int | None = None
    values: dict | None = None
    colors: dict | None = None
    crop_size: int = 256
    batch_size: int = 4
    augment: Augmentation | None = AUGMENTATION
    epochs: int = 50
    steps: int | None = None
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "data", str(self.data))
        for name in ("num_classes", "crop_size", "batch_size", "epochs", "steps"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))

    @property
    def parameters(self):
        """A dict of all that a run depends on, as JSON stores it."""
        parameters = dataclasses.asdict(self)
        if Path(self.data).exists():
            parameters["data"] = str(Path(self.data).resolve())
        for name in ("values", "colors"):  # JSON has no mapping of numbers or colours
            if parameters[name] is not None:
                parameters[name] = sorted(parameters[name].items())
        return json.loads(json.dumps(parameters))


@dataclasses.dataclass(frozen=True)
class Recipe(Task):
    """What is trained, on what, and how.

    Args:
        data, split, validation, num_classes, ignore, values, colors, crop_size,
            batch_size, augment, epochs, steps, seed: see `Task`.
        model: a key of `FACTORIES`; by default `"unet"`, or the network of the
            catalogue's weights.
        filters, encoder, dropout, upsampling: arguments of `UNet`; those that are None
            have its defaults.
        fc_filters: argument of the FCNs.
        batch_norm: argument of both.
        weights: a name of the catalogue, from which to fine-tune, or the argument
            `weights` of the factory.
        class_weights: `"log"`, see `log_class_weights`, or `"none"`.
        optimizer: `"adamw"`, `"muon"` (`keras_fcn.optimizers.Muon`) or `"sgd"`.
        learning_rate: the highest: it rises linearly over a twentieth of the steps and
            falls along a cosine. By default 1e-3 for a U-Net from scratch, else 1e-4.
        momentum: of SGD; by default 0.99, as in both papers.
        early_stopping: epochs without a better mean IoU after which to stop, counted
            anew after an interruption; by default it goes on to the end.
        mixed_precision: whether to compute in bfloat16, with float32 weights and scores.
        data_parallel: whether to share each batch among all devices.

    Raises:
        ValueError: for an argument out of its range or that does not go with the model.

    Example:

    >>> recipe = Recipe("shapes/cells", filters=(16, 32, 64), epochs=20, crop_size=96)
    >>> recipe.learning_rate
    0.001
    """

    model: str | None = None
    filters: tuple | None = None
    encoder: str | None = None
    batch_norm: bool = False
    dropout: float | None = None
    upsampling: str | None = None
    fc_filters: int | None = None
    weights: str | None = None
    class_weights: str = "log"
    optimizer: str = "adamw"
    learning_rate: float | None = None
    momentum: float | None = None
    early_stopping: int | None = None
    mixed_precision: bool = False
    data_parallel: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.early_stopping is not None:
            check_positive_integer("early_stopping", self.early_stopping)
        check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        self._check_architecture()
        if self.weights not in pretrained() and self.model is None:
            object.__setattr__(self, "model", "unet")
        self._check_optimizer()

    def _check_architecture(self):
        """Raise for arguments that do not go with the model."""
        if self.upsampling is not None:
            check_choice("upsampling", self.upsampling, UPSAMPLINGS)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(
                f"`dropout` should be from 0 to below 1. Received: dropout={self.dropout}"
            )
        unet = ("filters", "encoder", "dropout", "upsampling")
        fcn = ("fc_filters",)
        if self.weights in pretrained():
            owner = f"the weights {self.weights!r}"
            foreign = ("model", *unet, *fcn, "batch_norm")
        else:
            owner = self.model or "unet"
            check_choice("model", owner, tuple(FACTORIES))
            foreign = fcn if owner == "unet" else unet
        # a dropout of 0 is given, and equals False
        if given := [name for name in foreign if not _is_absent(getattr(self, name))]:
            raise ValueError(
                f"Each network has arguments of its own. Received: {', '.join(given)} together "
                f"with {owner}, which {'has' if len(given) == 1 else 'have'} no place there. "
                "Leave it out."
            )

    def _check_optimizer(self):
        """Raise for settings that no optimizer has; fill in the defaults."""
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.learning_rate is None:
            fresh_unet = self.model == "unet" and self.weights is None
            object.__setattr__(self, "learning_rate", 1e-3 if fresh_unet else 1e-4)
        if not self.learning_rate > 0:
            raise ValueError(
                f"`learning_rate` should be above 0. Received: learning_rate={self.learning_rate}"
            )
        if self.optimizer == "sgd" and self.momentum is None:
            object.__setattr__(self, "momentum", MOMENTUM)
        if self.momentum is not None and (self.optimizer != "sgd" or not 0 <= self.momentum < 1):
            raise ValueError(
                '`momentum` should be from 0 to below 1, and goes with `optimizer="sgd"`. '
                f"Received: momentum={self.momentum}, optimizer={self.optimizer!r}"
            )


def _is_absent(value):
    return value is None or value is False
