"""`HyperUNet` and `HyperFCN`: hypermodels for any tuner of KerasTuner."""

import contextlib
from collections.abc import Sequence

import keras_tuner

from keras_fcn import catalogue
from keras_fcn.arguments import check_input_shape, check_positive_integer
from keras_fcn.private import without_numbers, without_traces
from keras_fcn.remedies import spell
from keras_fcn.training.fit import compile_model, make_optimizer
from keras_fcn.training.labels import choose_class_weights, log_class_weights
from keras_fcn.training.recipe import CLASS_WEIGHTS, FACTORIES, OPTIMIZERS
from keras_fcn.unet import UPSAMPLINGS

WIDTHS = (16, 32, 64)  # filters of a U-Net's first level


class _HyperModel(keras_tuner.HyperModel):
    """What the hypermodels share: the count of parameters and the compile settings."""

    def __init__(
        self, input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
    ):
        super().__init__(name=name, tunable=tunable)
        check_input_shape(input_shape)
        check_positive_integer("num_classes", num_classes)
        if max_parameters is not None:
            check_positive_integer("max_parameters", max_parameters)
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        self.pixels = pixels
        self.max_parameters = max_parameters

    def build(self, hp):
        """Return the compiled model that the values stand for.

        Raises:
            keras_tuner.errors.FailedTrialError: when it has too many parameters.
        """
        network = self.network(hp)
        factory = catalogue.FACTORIES[FACTORIES[network.pop("model")]]
        activation = "sigmoid" if self.num_classes == 1 else "softmax"
        arguments = {
            "input_shape": self.input_shape,
            "num_classes": self.num_classes,
            "classifier_activation": activation,
            **network,
        }
        if self.max_parameters is not None:
            self._check_parameters(factory, arguments)
        model = factory(**arguments)
        self.compile(hp, model)
        return model

    def fit(self, hp, model, *args, **kwargs):
        """Train the model as `fit` does, after a look at the images' channels."""
        images = args[0] if args else kwargs.get("x")
        spec = getattr(images, "element_spec", (images,))
        shape = getattr(spec[0], "shape", None) or (None,)
        if shape[-1] not in (None, self.input_shape[-1]):
            raise keras_tuner.errors.FatalValueError(
                f"The images should have {self.input_shape[-1]} channels, as `input_shape="
                f"{self.input_shape}` says. Received: images of {shape[-1]}. Pass `input_shape="
                f"{(*self.input_shape[:-1], shape[-1])}` to {type(self).__name__}."
            )
        with without_traces():  # or a search would keep the weights of every trial
            return super().fit(hp, model, *args, **kwargs)

    def compile(self, hp, model):
        """Compile the model with the optimizer and the loss that the values stand for.

        Overwrite this method for other settings, and other hyperparameters of them.
        """
        solver = self.solver(hp)
        optimizer = make_optimizer(solver["optimizer"], solver["learning_rate"], solver["momentum"])
        weights = log_class_weights(self.pixels) if solver["class_weights"] == "log" else None
        compile_model(model, optimizer, weights, self.ignore_class)

    def solver(self, hp):
        """Return the values that are about training, as arguments of `Recipe`."""
        optimizer = hp.Choice("optimizer", list(OPTIMIZERS), default="muon")
        learning_rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log", default=3e-3)
        with _only_with(hp, "momentum", "optimizer", "sgd"):
            momentum = hp.Choice("momentum", [0.9, 0.99])
        class_weights = "none"
        if self.pixels is not None:
            planned = choose_class_weights(self.pixels)
            class_weights = hp.Choice("class_weights", list(CLASS_WEIGHTS), default=planned)
        return {
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "momentum": momentum if optimizer == "sgd" else None,
            "class_weights": class_weights,
        }

    def recipe(self, hp):
        """Return all that the values stand for, as arguments of `keras_fcn.training.Recipe`."""
        return {**self.network(hp), **self.solver(hp)}

    def _check_parameters(self, factory, arguments):
        parameters = _count_parameters(factory, {**arguments, "weights": None})
        if parameters > self.max_parameters:
            raise keras_tuner.errors.FailedTrialError(
                f"The network should have at most {self.max_parameters:,} parameters, "
                f"{spell('max_parameters')}. Received: one with {parameters:,}. It is left out; if "
                "it is the smallest of the search space, raise the limit."
            )


def _count_parameters(factory, arguments):
    """Count the parameters of a network without giving them memory."""
    with without_numbers():
        return factory(**arguments).count_params()


class HyperUNet(_HyperModel):
    """Search space of U-Nets for KerasTuner.

    | hyperparameter  | values                                   | default     |
    | --------------- | ---------------------------------------- | ----------- |
    | `width`         | 16, 32, 64: filters of the first level,  | 16          |
    |                 | each level has twice those above it      |             |
    | `depth`         | 3 to 5 levels                            | 3           |
    | `batch_norm`    | False, True                              | True        |
    | `dropout`       | 0, 0.25, 0.5                             | 0           |
    | `upsampling`    | "transpose", "bilinear"                  | "transpose" |
    | `optimizer`     | "adamw", "muon", "sgd"                   | "muon"      |
    | `learning_rate` | 1e-4 to 1e-2, logarithmic                | 3e-3        |
    | `momentum`      | 0.9, 0.99; with `optimizer="sgd"` only   | 0.9         |
    | `class_weights` | "log", "none"; if `pixels` are given     | see below   |

    `class_weights` begins as `keras-fcn train` plans it: with "log" where a class has less
    than a twentieth of the pixels, else with "none".
    The defaults are what was measured best from random weights, but for the size: the
    default network is the smallest, 16 filters at 3 levels; 64 filters at 5 levels are the
    paper's. Each entry gives way to one of the same name in the tuner's
    `hyperparameters=`; for `momentum` with or without its condition. With
    `tune_new_entries=False` only what is there is searched.

    Args:
        input_shape: `(height, width, channels)`, by default any size, RGB.
        num_classes: number of classes; 1 for two classes and one sigmoid.
        ignore_class: the label of void pixels, or None.
        pixels: labelled pixels of each class in the training set, for `class_weights`;
            by default all classes weigh alike.
        max_parameters: most parameters of a network. A trial with more ends as failed,
            with a message, before it is trained. KerasTuner gives a search up after
            `max_consecutive_failed_trials`, 3 by default: pass more to the tuner.
        name, tunable: see `keras_tuner.HyperModel`.

    Raises:
        ValueError: when `max_parameters` is no integer from 1 up.
        keras_tuner.errors.FailedTrialError: from the tuner's constructor, when the
            default network has more than `max_parameters`.

    Models are compiled by `compile(hp, model)`: `WeightedCrossentropy`, which takes void
    labels, and `SegmentationMetrics`. Overwrite it for other settings.

    Source: Ronneberger, Fischer and Brox 2015 (64 filters, 5 levels, SGD of momentum
    0.99); O'Malley et al., KerasTuner, 2019.

    Example:

    >>> import keras_tuner
    >>> tuner = keras_tuner.RandomSearch(
    ...     HyperUNet(num_classes=2, ignore_class=255, max_parameters=2_000_000),
    ...     objective=keras_tuner.Objective("val_mean_iou", "max"),
    ...     max_trials=20, max_consecutive_failed_trials=20, directory="runs",
    ... )  # doctest: +SKIP
    >>> tuner.search(training, validation_data=validation, epochs=10)  # doctest: +SKIP

    >>> model = HyperUNet(num_classes=2).build(keras_tuner.HyperParameters())
    >>> model.count_params()
    118018
    """

    def __init__(
        self,
        input_shape: tuple[int | None, int | None, int] = (None, None, 3),
        num_classes: int = 2,
        ignore_class: int | None = None,
        pixels: Sequence[int] | None = None,
        max_parameters: int | None = None,
        name: str | None = None,
        tunable: bool = True,
    ):
        super().__init__(
            input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
        )

    def network(self, hp):
        """Return the network that the values stand for, as arguments of `Recipe`."""
        width = hp.Choice("width", list(WIDTHS))
        depth = hp.Int("depth", 3, 5)
        return {
            "model": "unet",
            "filters": tuple(width * 2**level for level in range(depth)),
            "batch_norm": hp.Boolean("batch_norm", default=True),
            "dropout": hp.Choice("dropout", [0.0, 0.25, 0.5], default=0.0),
            "upsampling": hp.Choice("upsampling", list(UPSAMPLINGS)),
        }


class HyperFCN(_HyperModel):
    """Search space of FCNs for KerasTuner.

    | hyperparameter  | values                                       | default |
    | --------------- | -------------------------------------------- | ------- |
    | `stride`        | 32, 16, 8: of the finest scores, by FCN-32s, | 32      |
    |                 | FCN-16s and FCN-8s                           |         |
    | `at_once`       | False, True: FCN-8s with scaled skips; with  | False   |
    |                 | `stride=8` only                              |         |
    | `fc_filters`    | 256, 1024, 4096: width of fc6 and fc7        | 256     |

    and `optimizer`, `learning_rate`, `momentum` and `class_weights` as of `HyperUNet`,
    whose arguments, errors and `hyperparameters=` are the same. What is above fc6 is
    VGG16's in every FCN, and dropout is 0.5. The paper has 4096 filters.

    Args:
        input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable:
            see `HyperUNet`.
        weights: None or `"imagenet"`, the weights from which every trial starts.

    Source: Long, Shelhamer and Darrell 2015, section 4 (strides, SGD).

    Example:

    >>> import keras_tuner
    >>> hp = keras_tuner.HyperParameters()
    >>> hp.Fixed("stride", 8)
    8
    >>> HyperFCN(num_classes=21).network(hp)["model"]
    'fcn8s'
    """

    def __init__(
        self,
        input_shape: tuple[int | None, int | None, int] = (None, None, 3),
        num_classes: int = 21,
        ignore_class: int | None = None,
        pixels: Sequence[int] | None = None,
        max_parameters: int | None = None,
        weights: str | None = None,
        name: str | None = None,
        tunable: bool = True,
    ):
        super().__init__(
            input_shape, num_classes, ignore_class, pixels, max_parameters, name, tunable
        )
        self.weights = weights

    def network(self, hp):
        """Return the network that the values stand for, as arguments of `Recipe`."""
        stride = hp.Choice("stride", [32, 16, 8])
        with _only_with(hp, "at_once", "stride", 8):
            at_once = hp.Boolean("at_once")
        return {
            "model": "fcn8s_at_once" if stride == 8 and at_once else f"fcn{stride}s",
            "fc_filters": hp.Choice("fc_filters", [256, 1024, 4096]),
            "weights": self.weights,
        }


def _only_with(hp, name, parent, value):
    """Open a scope for the hyperparameter `name`, which has a meaning with this value only.

    There is none if the user gives the hyperparameter without a condition: for
    KerasTuner ours would be another one, sampled besides.
    """
    if any(known.name == name and not known.conditions for known in hp.space):
        return contextlib.nullcontext()
    return hp.conditional_scope(parent, [value])
