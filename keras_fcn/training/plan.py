"""What a recipe leaves out, planned from the data and the machine, with a reason for each choice.

The numbers are those that were measured best on CamVid, ISBI 2012 and nuclei, see
weights/RECIPES.md.
"""

import contextlib
import dataclasses
import os
from pathlib import Path

import keras
import numpy as np

from keras_fcn.cards import pretrained
from keras_fcn.datasets import Augmentation, resolve_source
from keras_fcn.datasets.catalogue import split_names
from keras_fcn.datasets.folder import find_splits
from keras_fcn.training.labels import RARE, choose_class_weights, count_steps, rarest_share
from keras_fcn.training.network import describe
from keras_fcn.training.recipe import FACTORIES, PLANNED
from keras_fcn.vgg16 import is_vgg16_file
from keras_fcn.weights import read_network

CROP = 256  # pixels, the largest crop
PIXELS = 4 * CROP**2  # of a step
STEP_BYTES = 8000  # of memory for a pixel of a step, generously
STEPS = 4000  # of a whole training from scratch
TUNING_STEPS = 1500  # of one that begins with weights that fit
SHARE = 0.95  # of the given minutes, for steps and validations
EPOCH_STEPS = 200  # after which to validate
UPRIGHT = 0.1  # of the pixels: above it, what is up and what is down matters
HELD_OUT = ("val", "validation", "valid", "test")
# Slices 24 to 29 of the 30 are left for a last score.
SPLITS = {"isbi2012": ("train[:20]", "train[20:24]")}


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a training runs on."""

    cores: int
    gpus: int
    memory: int  # bytes; 0 if it is not known
    bfloat16: bool  # whether it computes faster in it

    @classmethod
    def here(cls):
        """Look at the machine that this is."""
        info = Path("/proc/cpuinfo")
        flags = info.read_text().split() if info.exists() else ()
        gpus = _count_gpus()
        return cls(
            cores=_count_cores(),
            gpus=gpus,
            memory=_memory(),
            bfloat16=bool(gpus) or "avx512_bf16" in flags or "amx_bf16" in flags,
        )


def plan_splits(task):
    """Choose the splits that a task leaves out.

    Args:
        task: `Task`.

    Returns:
        The task with its splits, and a dict of the reason for each choice.
    """
    if task.split is not None and task.validation is not None:
        return task, {}
    source = resolve_source(task.data)
    if isinstance(source, str):
        names, special = split_names(source), SPLITS.get(source.partition("/")[0])
    else:
        names, special = list(find_splits(source, task.mask_suffix)), None
    held_out = [split for split in HELD_OUT if split in names]
    if special is not None:
        split, validation = special
        reason = "the slices after them are left for a last score"
    elif "train" in names and held_out:
        split, validation, reason = "train", held_out[0], "the data has these splits"
    else:
        whole = "train" if "train" in names else "all"
        split, validation = f"{whole}[:80%]", f"{whole}[80%:]"
        reason = "the data has no images set apart to validate on: the last fifth by name"
    return _fill(task, {"split": (split, reason), "validation": (validation, reason)})


def plan(recipe, data, machine=None):
    """Choose what a recipe leaves out.

    Args:
        recipe: `Recipe` with its splits, see `plan_splits`.
        data: `Labels` of its data, from `read_data`.
        machine: `Machine`; by default this one.

    Returns:
        The `Recipe` whose every argument is chosen, and a dict of the reason for each choice.

    Example:

    >>> recipe, _ = plan_splits(Recipe("shapes/cells"))  # doctest: +SKIP
    >>> plan(recipe, read_data(recipe))[0].crop_size  # doctest: +SKIP
    """
    machine = machine or Machine.here()
    recipe, reasons = plan_task(recipe, data, machine)
    for choose in (_plan_network, _plan_solver, _plan_length, _plan_freezing):
        recipe, more = _fill(recipe, choose(recipe, data))
        reasons |= more
    precision = _plan_precision(machine)
    recipe, more = _fill(recipe, {"mixed_precision": precision})
    return recipe, reasons | more


def plan_task(task, data, machine):
    """Choose crops, batches and augmentation; return the task and the reasons."""
    side = int(np.median(data.sizes.min(1)))
    crop = min(CROP, max(32, side // 32 * 32))
    crop_reason = f"images of {side} pixels, by the median of their shorter sides"
    task, reasons = _fill(task, {"crop_size": (crop, crop_reason)})
    batches = _plan_batches(task.crop_size, machine)
    task, more = _fill(task, {"batch_size": batches, "augment": _plan_augmentation(data)})
    return task, reasons | more


def describe_plan(recipe, reasons):
    """Return the lines that say what was chosen and why."""
    parameters = recipe.parameters
    lines = []
    for name, reason in reasons.items():
        value = parameters[name]
        if isinstance(value, dict):
            value = {key: setting for key, setting in value.items() if setting}
            value = " ".join(f"{key}={setting}" for key, setting in value.items()) or "none"
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        lines.append(f"  {name.replace('_', ' '):16} {value!s:24} {reason}")
    return lines


def _fill(task, choices):
    """Take {name: (value, reason)} where the task leaves the name out.

    Returns:
        The task, and {name: reason} of what was taken.
    """
    chosen = {
        name: choice for name, choice in choices.items() if getattr(task, name) in (None, PLANNED)
    }
    if augment := getattr(task, "augment", None):
        if augment != PLANNED:
            chosen.pop("augment", None)
    elif "augment" in chosen:  # None: no augmentation, as it was given
        del chosen["augment"]
    values = {name: value for name, (value, _) in chosen.items()}
    return dataclasses.replace(task, **values), {name: why for name, (_, why) in chosen.items()}


def _plan_batches(crop_size, machine):
    batch = int(np.clip(2 ** round(np.log2(PIXELS / crop_size**2)), 1, 16))
    fitting = batch
    while fitting > 1 and machine.memory and fitting * crop_size**2 * STEP_BYTES > machine.memory:
        fitting //= 2
    if fitting < batch:
        return fitting, f"a memory of {machine.memory / 2**30:.0f} GB"
    return batch, f"crops of {crop_size} pixels"


def _plan_augmentation(data):
    color = {"saturation": 0.5, "hue": 0.05} if data.colored else {}
    colors = "coloured" if data.colored else "gray"
    if data.channels not in (1, 3):  # saturation and hue are of RGB
        colors = f"{data.channels}-band"
    if data.upright > UPRIGHT:
        augmentation = Augmentation("horizontal", scale=0.4, contrast=0.3, brightness=0.15, **color)
        return augmentation, f"{colors} images, whose classes lie differently above and below"
    augmentation = Augmentation("dihedral", scale=0.25, elastic=10, contrast=0.2, brightness=0.1)
    augmentation = dataclasses.replace(augmentation, **color)
    return augmentation, f"{colors} images, whose classes lie alike above and below: no side is up"


def _plan_network(recipe, data):
    if recipe.has_architecture:
        return {}
    if recipe.network != "unet":
        if recipe.weights is None:
            return {"batch_norm": (True, "the weights begin at random")}
        return {"batch_norm": (False, f"the weights {recipe.weights!r} have none")}
    if recipe.encoder is not None:
        levels, why = 5, "VGG16 has five levels"
    else:
        levels = 5 if recipe.crop_size >= 192 else 4 if recipe.crop_size >= 64 else 3
        why = f"{levels} levels for crops of {recipe.crop_size} pixels"
    widths = tuple(32 * 2**level for level in range(levels))
    return {
        "filters": (widths, why),
        "batch_norm": (True, "the weights of the expanding path begin at random"),
        "dropout": (0.0, f"augmentation makes many of {data.images['train']} images"),
    }


def _plan_solver(recipe, data):
    choices = _plan_loss(recipe, data)
    choices["optimizer"] = ("muon", "the best of those measured")
    optimizer = recipe.optimizer or "muon"
    rate, share = _plan_rates(recipe, optimizer)
    start = "random weights" if recipe.weights is None else f"the weights {_file_name(recipe)!r}"
    choices["learning_rate"] = (rate, f"{optimizer} from {start}")
    if share is not None:
        choices["encoder_share"] = (share, "at the whole rate VGG16's kernels lose what they know")
    if optimizer == "sgd":
        choices["momentum"] = (0.99, "as in the papers")
    return choices


def _plan_loss(recipe, data):
    if _parts_objects(recipe, data):
        share = data.training[-1] / data.training.sum()
        return {
            "loss": ("crossentropy", "the border weights are of it"),
            "class_weights": ("none", "with them too much becomes border"),
            "border_weights": (True, f"a class border, {share:.1%} of the pixels, parts objects"),
        }
    if recipe.weights is None:
        why = f"the rarest class has {rarest_share(data.training):.1%} of the labelled pixels"
        return {"class_weights": (choose_class_weights(data.training), why)}
    return {
        "loss": ("dice", "the overlap of each class counts, however rare it is"),
        "class_weights": ("none", "with them too much is found of what is rare"),
    }


def _parts_objects(recipe, data):
    """Whether the last class is a thin border between objects, and nothing is said of the loss.

    With a loss or class weights that are given, as a search or a card gives them, border weights
    would make another training than the one that is meant.
    """
    if recipe.border_weights is False or {recipe.loss, recipe.class_weights} != {None}:
        return False
    names = data.classes.names
    is_border = len(names) > 2 and (recipe.instances == "border" or names[-1] == "border")
    return is_border and data.training[-1] < RARE * data.training.sum()


def _plan_rates(recipe, optimizer):
    """Return the learning rate, and VGG16's share of it or None."""
    if optimizer != "muon":
        fresh = recipe.weights is None or keeps_vgg16(recipe)
        return (1e-3 if fresh and recipe.network == "unet" else 1e-4), None
    if recipe.weights is None:
        return 3e-3, None
    brought, encoder = _brought_network(recipe)
    fresh = begins_on_vgg16(recipe)  # all but VGG16
    if (recipe.network or brought or "unet") == "unet":
        trained = encoder == "vgg16" or (fresh and not keeps_vgg16(recipe))
        return (2e-3 if fresh else 1e-3), (0.1 if trained else None)
    if brought and recipe.network in (None, brought):
        return 2e-4, 0.5
    # a finer FCN's skip reads features in the hundreds: at 5e-4 its loss rose threefold
    return (2e-4 if fresh else 1e-4), None


def _file_name(recipe):
    return Path(recipe.weights).name


def begins_on_vgg16(recipe):
    """Whether the weights are VGG16's from ImageNet and nothing else."""
    if recipe.weights in (None, "imagenet") or recipe.has_architecture:
        return recipe.weights == "imagenet"
    try:
        return is_vgg16_file(recipe.weights)
    except OSError:  # what is wrong with the file is said where it is loaded
        return False


def _brought_network(recipe):
    """Return the network that the weights bring, a key of `FACTORIES`, and its encoder, or None."""
    if recipe.is_shipped:
        card = pretrained()[recipe.weights]
        names = {factory: name for name, factory in FACTORIES.items()}
        return names[card["factory"]], card["arguments"].get("encoder")
    found = {}
    if recipe.has_architecture:
        with contextlib.suppress(OSError, ValueError):  # it is said where it is trained
            found = describe(read_network(recipe.weights))
    return found.get("model"), found.get("encoder")


def keeps_vgg16(recipe):
    """Whether VGG16 is left as it is: with all of it trained a step takes thrice as long."""
    planned = recipe.freeze_encoder is None
    on_vgg16 = recipe.network == "unet" and begins_on_vgg16(recipe)
    return planned and on_vgg16 and keras.backend.backend() != "jax"  # JAX can't freeze a part


def _plan_freezing(recipe, _data=None):
    """Choose for how many epochs VGG16 stays as it is, as far as it is known how many there are."""
    if recipe.epochs is None or not keeps_vgg16(recipe):
        return {}
    reason = f"{_file_name(recipe)!r} stays as it is, and the expanding path learns to read it"
    return {"freeze_encoder": (recipe.epochs, reason)}


def _plan_length(recipe, data):
    if recipe.minutes is not None:
        return {}  # see `fit_into`
    images = data.images["train"]
    once = count_steps(images, recipe.batch_size)
    if recipe.epochs is not None:
        return {"steps": (once, f"each of {images} images once")}
    total = STEPS if not recipe.has_architecture else TUNING_STEPS
    steps = recipe.steps or EPOCH_STEPS
    epochs = max(1, round(total / steps))
    start = "random weights" if not recipe.has_architecture else "weights that fit"
    return {
        "steps": (steps, f"{steps * recipe.batch_size / images:.1f} times {images} images"),
        "epochs": (epochs, f"{epochs * steps} steps from {start}"),
    }


def fit_into(recipe, step, validation):
    """Choose the steps and epochs that fill the minutes of a recipe.

    Args:
        recipe: `Recipe` with `minutes`, and everything else planned.
        step, validation: the seconds that these take.

    Returns:
        The `Recipe`, and a dict of the reason for each choice.
    """
    seconds = SHARE * 60 * recipe.minutes
    # a fifth of the time at most goes into validation, but there is one in any case
    steps = recipe.steps or max(EPOCH_STEPS, round(4 * validation / step))
    epochs = max(1, int(seconds / (steps * step + validation)))
    if recipe.steps is None:  # all of the time
        steps = max(1, int((seconds / epochs - validation) / step))
    reason = f"a step takes {step:.2f} s here, and a validation about {validation:.0f} s"
    recipe, reasons = _fill(recipe, {"steps": (steps, reason)})
    reasons |= {"epochs": f"{recipe.minutes:g} minutes for {epochs * steps} steps"}
    # recorded in place of the minutes, in which another machine would do other steps
    recipe = dataclasses.replace(recipe, minutes=None, epochs=epochs)
    recipe, more = _fill(recipe, _plan_freezing(recipe))
    return recipe, reasons | more


def _plan_precision(machine):
    count, unit = (machine.gpus, "GPU") if machine.gpus else (machine.cores, "core")
    where = f"{count} {unit}{'s' * (count > 1)}{'' if machine.gpus else ' without a GPU'}"
    speed = "with" if machine.bfloat16 else "without"
    return machine.bfloat16, f"{where}, {speed} fast bfloat16"


def _count_cores():
    if hasattr(os, "sched_getaffinity"):  # those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _count_gpus():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    return len([device for device in keras.distribution.list_devices() if "cpu" not in device])


def _memory():
    """Return the memory of the machine in bytes, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
