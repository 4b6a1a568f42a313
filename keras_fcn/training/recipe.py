"""What is trained, on what, and how: checked before a run begins."""

import dataclasses
import json
import numbers
from pathlib import Path

from keras_fcn.arguments import (
    as_void,
    check_choice,
    check_filters,
    check_flag,
    check_positive_integer,
    check_reading,
    check_share,
    is_integer,
    is_number,
)
from keras_fcn.cards import pretrained
from keras_fcn.datasets import SOURCES, Augmentation
from keras_fcn.datasets.augmentation import check_augmentation
from keras_fcn.datasets.masks import INSTANCES, check_colors, check_values
from keras_fcn.remedies import given, spell

FACTORIES = {
    "unet": "UNet",
    "fcn32s": "FCN32s",
    "fcn16s": "FCN16s",
    "fcn8s": "FCN8s",
    "fcn8s_at_once": "FCN8sAtOnce",
}
"""What `Recipe(model=...)` may be, dict of name and the function of `keras_fcn` it stands for."""
UPSAMPLINGS = ("transpose", "bilinear")
OPTIMIZERS = ("adamw", "muon", "sgd")
LOSSES = ("crossentropy", "dice")
CLASS_WEIGHTS = ("log", "none")
YEAR = 366 * 24 * 60  # minutes
FLAGS = ("batch_norm", "border_weights", "mixed_precision", "data_parallel", "deterministic")
PLANNED = "planned"
SEEDS = 2**32 - 1  # one less than NumPy has: a search takes the next one, too
UNET = ("filters", "encoder", "dropout", "upsampling")  # arguments of UNet alone
FCN = ("fc_filters",)  # of the FCNs alone
ARCHITECTURE = ("model", *UNET, *FCN, "batch_norm")


@dataclasses.dataclass(frozen=True)
class Task:
    """What to learn from: the data, the batches made of it, and how many.

    What is left out is planned from the data and the machine, see `keras_fcn.training.plan`.

    Args:
        data: a folder of images and masks, or a data set, as camvid or shapes/cells.
        split: what to train on, as "train" or "all[:80%]" (default: planned).
        validation: what to validate on, as "val" or "all[80%:]" (default: planned).
        num_classes: number of classes; 1 for two classes and one sigmoid (default: as the
            data set or the training masks show).
        ignore: the label of void pixels (default: that of the data set, 255 for folders).
        values: what the pixels of the masks stand for, as 0=0 255=1.
        colors: what the colours of the masks stand for, as 0,0,0=0 128,64,128=1.
        instances: of masks that number objects, or are several an image, one for each object:
            two for the classes background and object, border for a third class where objects
            touch.
        mask_suffix: what masks have in their names besides those of the images (default:
            nothing, else _mask, _label and the like).
        white: the value of pixels of more than 8 bits that becomes 255, as 4095 for a 12-bit
            camera (default: what the file says, else 65535).
        max_pixels: the most pixels that an image may have (default: about 179 million).
        class_names: name of each class, in the order of their labels (default: those of the
            data set or of a file classes.csv beside the masks, else numbers).
        class_colors: colour of each class, as 0,0,0 128,64,128 (default: those of classes.csv
            or of palette masks, else of PASCAL VOC).
        crop_size: side of the random crops to train on; validation is on whole images
            (default: planned).
        batch_size: crops in a step, over all devices (default: planned).
        augment: flip, rotation, scale, contrast, brightness, elastic, saturation, hue, as of
            `keras_fcn.datasets.Augmentation`, or none (default: planned).
        epochs: how often to validate and save (default: planned).
        steps: steps in an epoch (default: each image once, where epochs are given; else
            planned).
        seed: of the weights, the order of the images, crops and augmentation (default 0).

    Raises:
        ValueError: for an argument out of its range.

    Example:

    >>> Task("shapes/cells", crop_size=96).parameters["crop_size"]
    96
    """

    data: str
    split: str | None = None
    validation: str | None = None
    num_classes: int | None = None
    ignore: int | None = None
    values: dict | None = None
    colors: dict | None = None
    instances: str | None = None
    mask_suffix: str | None = None
    white: float | None = None
    max_pixels: int | None = None
    class_names: tuple[str, ...] | None = None
    class_colors: tuple[tuple, ...] | None = None
    crop_size: int | None = None
    batch_size: int | None = None
    augment: Augmentation | str | None = PLANNED
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.data, tuple | list):
            raise ValueError(
                f"{spell('data')} should be one folder of images and masks, or the name of a data "
                f"set. Received: {given('data', self.data)}. Make a folder of both, with links "
                "`images` and `masks` to them."
            )
        if isinstance(self.data, Path) and not self.data.is_absolute():
            object.__setattr__(self, "data", f"./{self.data}")  # a folder, whatever its name
        object.__setattr__(self, "data", str(self.data))
        for name in ("num_classes", "crop_size", "batch_size", "epochs", "steps"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))
        object.__setattr__(self, "ignore", as_void("ignore", self.ignore))
        check_reading(self.white, self.max_pixels)
        if not is_integer(self.seed) or not 0 <= self.seed < SEEDS:
            raise ValueError(
                f"{spell('seed')} should be an integer from 0 to {SEEDS - 1}. Received: "
                f"{given('seed', self.seed)}"
            )
        if self.values is not None:
            check_values(self.values)
        if self.colors is not None:
            object.__setattr__(self, "colors", check_colors(self.colors))
        if self.instances is not None:
            check_choice("instances", self.instances, tuple(INSTANCES))
        if self.augment != PLANNED:
            check_augmentation(self.augment)
        self._check_classes()
        for field in dataclasses.fields(self):  # what NumPy has computed is a number like others
            if isinstance(value := getattr(self, field.name), numbers.Integral | numbers.Real):
                object.__setattr__(self, field.name, _plain(value))

    def _check_classes(self):
        """Raise unless names, colours and number of the classes agree."""
        if self.class_names is not None:
            if isinstance(text := self.class_names, str):
                raise TypeError(
                    "Class names should be a list, a text for each class. Received: "
                    f"{text!r}. Write [{text!r}] for one class of that name."
                )
            object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
            count = len(self.class_names)
            if self.num_classes not in (None, count) and (self.num_classes, count) != (1, 2):
                raise ValueError(
                    f"{spell('class_names')} should name each class. Received: {count} names for "
                    f"{given('num_classes', self.num_classes)}. Name each, or leave out one or the "
                    "other."
                )
        if self.class_colors is not None:
            colors = tuple(tuple(map(_plain, color)) for color in self.class_colors)
            object.__setattr__(self, "class_colors", colors)

    @property
    def parameters(self):
        """A dict of all that a run depends on, as JSON stores it."""
        parameters = dataclasses.asdict(self)
        is_name = self.data.partition("/")[0] in SOURCES  # also where a folder is called so
        for name in ("weights",) if is_name else ("data", "weights"):
            if parameters.get(name) and Path(parameters[name]).exists():
                parameters[name] = str(Path(parameters[name]).resolve())
        for name in ("values", "colors"):  # JSON has no mapping of numbers or colours
            if parameters[name] is not None:
                parameters[name] = sorted(parameters[name].items())
        return json.loads(json.dumps(parameters, default=_plain))


@dataclasses.dataclass(frozen=True)
class Recipe(Task):
    """What is trained, on what, and how.

    What is left out is planned from the data and the machine, see `keras_fcn.training.plan`.

    Args:
        data, split, validation, num_classes, ignore, values, colors, instances, mask_suffix,
            white, max_pixels, class_names, class_colors, crop_size, batch_size, augment, epochs,
            steps, seed: see `Task`.
        model: unet, fcn8s, fcn8s_at_once, fcn16s or fcn32s (default: unet, or the network of
            the weights).
        filters: of U-Net: filters of each level (default: planned).
        encoder: of U-Net: vgg16 (default: none).
        batch_norm: batch normalisation (default: planned).
        dropout: of U-Net: rate at the two deepest levels (default: planned).
        upsampling: of U-Net: transpose or bilinear (default transpose).
        fc_filters: of FCNs: filters of fc6 and fc7 (default 4096).
        minutes: about how long to train, instead of `epochs`: a few steps are timed for it.
        weights: from which to start: a name that `keras-fcn models` lists, a model saved as a
            .keras file, whose architecture is then taken too, imagenet, or a weights file
            (default none: from scratch).
        freeze_encoder: epochs at the beginning in which the contracting path, its batch
            normalisation too, stays as it is (default: planned; all of them in a U-Net that begins
            on VGG16, else none).
        loss: crossentropy, or dice for the sum of it and of the Dice loss, which judges the
            overlap of each class however small it is (default: planned).
        class_weights: log, to weigh rare classes up by the logarithm of their share, or none
            (default: planned).
        border_weights: weigh pixels between touching objects up, as in the U-Net paper
            (default: planned; where the last of three classes or more is a thin border).
        optimizer: adamw, muon or sgd (default: planned).
        learning_rate: the highest: it rises linearly over a twentieth of the steps and falls
            along a cosine (default: planned).
        encoder_share: of muon: the share of the learning rate by which the contracting path
            learns, above 0 (default: planned; 0.1 where it is a U-Net's VGG16 from weights, else
            1).
        momentum: of sgd (default 0.99, as in the papers).
        early_stopping: epochs without a better mean IoU after which to stop (default: none).
        mixed_precision: compute in bfloat16, with float32 weights and scores (default:
            planned).
        data_parallel: share each batch among all devices.
        deterministic: compute by operations alone that give the same each time, on a GPU, too;
            slower. On one CPU all are.

    Raises:
        ValueError: for an argument out of its range or that does not go with the model.

    Example:

    >>> recipe = Recipe("shapes/cells", filters=(16, 32, 64), epochs=20, crop_size=96)
    >>> dataclasses.replace(recipe, weights="imagenet", encoder="vgg16", filters=None).network
    'unet'
    """

    model: str | None = None
    filters: tuple[int, ...] | None = None
    encoder: str | None = None
    batch_norm: bool | None = None
    dropout: float | None = None
    upsampling: str | None = None
    fc_filters: int | None = None
    weights: str | None = None
    minutes: float | None = None
    freeze_encoder: int | None = None
    loss: str | None = None
    class_weights: str | None = None
    border_weights: bool | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    encoder_share: float | None = None
    momentum: float | None = None
    early_stopping: int | None = None
    mixed_precision: bool | None = None
    data_parallel: bool = False
    deterministic: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("early_stopping", "freeze_encoder"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))
        if self.filters is not None:
            check_filters(self.filters)
            object.__setattr__(self, "filters", tuple(map(int, self.filters)))
        if self.fc_filters is not None:
            check_positive_integer("fc_filters", self.fc_filters)
        for name in FLAGS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_flag(name, value))
        for name, choices in {
            "loss": LOSSES,
            "class_weights": CLASS_WEIGHTS,
            "optimizer": OPTIMIZERS,
            "upsampling": UPSAMPLINGS,
        }.items():
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), choices)
        self._check_architecture()
        self._check_optimizer()
        self._check_minutes()

    @property
    def network(self):
        """The network: a key of `FACTORIES`; None if it is that of the weights."""
        return None if self.model is None and self.has_architecture else self.model or "unet"

    @property
    def has_architecture(self):
        """Whether the weights say which network they belong to."""
        return self.is_shipped or str(self.weights).endswith(".keras")

    @property
    def is_shipped(self):
        """Whether the weights are of the catalogue."""
        return self.weights in pretrained()

    def _check_architecture(self):
        """Raise for arguments that do not go with the model."""
        if self.dropout is not None:
            check_share("dropout", self.dropout)
        if self.is_shipped:
            owner, foreign = f"the weights {self.weights!r}", ARCHITECTURE
        elif self.network is None:  # of a file, with which what is given is compared later
            return
        else:
            owner = self.network
            check_choice("model", owner, tuple(FACTORIES))
            foreign = FCN if owner == "unet" else UNET
            self._check_encoder()
        # a dropout of 0 is given, and equals False
        if names := [name for name in foreign if not _is_absent(getattr(self, name))]:
            received = ", ".join(given(name, getattr(self, name)) for name in names)
            raise ValueError(
                f"Each network has arguments of its own. Received: {received} together with "
                f"{owner}, which {'has' if len(names) == 1 else 'have'} no place there. Leave "
                f"{', '.join(map(spell, names))} out."
            )

    def _check_encoder(self):
        """Raise for ImageNet's weights without the layers that they are of."""
        if self.weights == "imagenet" and self.network == "unet" and self.encoder is None:
            raise ValueError(
                "ImageNet's weights are those of VGG16. Received: "
                f"{given('weights', self.weights)} with a U-Net that does not begin with it. Pass "
                f"{spell('encoder', 'vgg16')}, or choose an FCN, {spell('model', 'fcn8s')}."
            )

    def _check_optimizer(self):
        """Raise for settings that no optimizer has."""
        rate = self.learning_rate
        if rate is not None and not (is_number(rate) and rate > 0):
            raise ValueError(
                f"{spell('learning_rate')} should be a finite number above 0. Received: "
                f"{given('learning_rate', rate)}"
            )
        share = self.encoder_share
        valid = is_number(share) and share > 0 and self.optimizer in (None, "muon")
        if share is not None and not valid:
            raise ValueError(
                f"{spell('encoder_share')} should be a finite number above 0, and goes with "
                f"{spell('optimizer', 'muon')}. Received: {given('encoder_share', share)}, "
                f"{given('optimizer', self.optimizer)}"
            )
        momentum = self.momentum
        valid = is_number(momentum) and 0 <= momentum < 1 and self.optimizer == "sgd"
        if momentum is not None and not valid:
            raise ValueError(
                f"{spell('momentum')} should be from 0 to below 1, and goes with "
                f"{spell('optimizer', 'sgd')}. Received: {given('momentum', momentum)}, "
                f"{given('optimizer', self.optimizer)}"
            )

    def _check_minutes(self):
        """Raise unless the length of the training is said once, if at all."""
        if self.minutes is None:
            return
        valid = is_number(self.minutes) and 0 < self.minutes <= YEAR
        if self.epochs is not None or not valid:
            raise ValueError(
                f"{spell('minutes')} should be a number above 0, at most {YEAR}, and goes without "
                f"{spell('epochs')}. Received: {given('minutes', self.minutes)}, "
                f"{given('epochs', self.epochs)}"
            )


def arguments_of(parameters):
    """Return the arguments of a `Recipe` or a `Search` from its parameters, as JSON stored them."""
    arguments = dict(parameters)
    if isinstance(arguments.get("augment"), dict):
        arguments["augment"] = Augmentation(**arguments["augment"])
    if arguments.get("values") is not None:
        arguments["values"] = dict(arguments["values"])
    if arguments.get("colors") is not None:
        arguments["colors"] = {tuple(color): label for color, label in arguments["colors"]}
    for name in ("class_names", "class_colors"):
        if arguments.get(name) is not None:
            arguments[name] = tuple(map(_as_tuple, arguments[name]))
    return arguments


def recall(kind, parameters, path):
    """Return the `Recipe` or `Search` of parameters that a record of a run holds.

    Raises:
        ValueError: naming the record, when they are not what was written.
    """
    try:
        return kind(**arguments_of(parameters))
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"'{path}' should hold the parameters as they were written. Received: {error}. Put it "
            "back from a copy, or choose another folder."
        ) from error


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _plain(number):
    """Return NumPy's numbers as Python's, which JSON stores."""
    if isinstance(number, bool):
        return number
    return int(number) if isinstance(number, numbers.Integral) else float(number)


def _is_absent(value):
    return value is None or value is False
