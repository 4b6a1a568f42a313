"""What a search looks for: checked before it begins, without KerasTuner."""

import dataclasses

from keras_fcn.arguments import check_choice, check_positive_integer
from keras_fcn.remedies import given, spell
from keras_fcn.training.recipe import Task

TUNERS = ("random", "hyperband", "bayesian", "grid")
MODELS = ("unet", "fcn")
# What a recipe takes over from the search: all of the data, but not how long to train.
DATA = [
    field.name
    for field in dataclasses.fields(Task)
    if field.name not in ("epochs", "steps", "seed")
]


@dataclasses.dataclass(frozen=True)
class Search(Task):
    """What is searched, on what, and how.

    Args:
        data, split, validation, num_classes, ignore, values, colors, instances, mask_suffix,
            white, max_pixels, class_names, class_colors, crop_size, batch_size, augment, seed: see
            `keras_fcn.training.Task`.
        epochs: epochs of each trial, with hyperband of its longest ones (default 10).
        steps: steps in an epoch (default: each image once).
        trials: number of trials (default 20). Networks that `max_parameters` leaves out do
            not count.
        tuner: random; hyperband: many short trials, of which the best go on; bayesian, whose
            first third is random; or grid, all combinations in order, of which the trials
            should leave few out (default random).
        model: unet for `HyperUNet`, or fcn for `HyperFCN` (default unet).
        weights: of FCNs: imagenet, to start every trial from VGG16's (default: none).
        max_parameters: leave out networks with more parameters.

    Raises:
        ValueError: for an argument out of its range, or `weights` for a U-Net.

    Example:

    >>> Search("shapes/cells", trials=20, tuner="hyperband").epochs
    10
    """

    epochs: int = 10
    trials: int = 20
    tuner: str = "random"
    model: str = "unet"
    weights: str | None = None
    max_parameters: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("trials", "max_parameters"):
            if name == "trials" or self.max_parameters is not None:
                check_positive_integer(name, getattr(self, name))
        check_choice("tuner", self.tuner, TUNERS)
        check_choice("model", self.model, MODELS)
        check_choice("weights", self.weights, (None, "imagenet"))
        if self.weights and self.model == "unet":
            raise ValueError(
                "The U-Nets of a search start from scratch. Received: "
                f"{given('weights', self.weights)}. Leave {spell('weights')} out, or search an "
                f"FCN: {spell('model', 'fcn')}."
            )
