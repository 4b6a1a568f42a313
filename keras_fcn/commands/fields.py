"""Options of the command line, with types and help, from the fields of a dataclass."""

import argparse
import dataclasses
import re
import typing

from keras_fcn.arguments import suggest
from keras_fcn.commands import completion
from keras_fcn.datasets.augmentation import FLIPS, Augmentation
from keras_fcn.remedies import OPTIONS, spell
from keras_fcn.training.recipe import PLANNED

# What stands for the value of an option in the help, where its type does not say it.
METAVARS = {
    "data": "DIR|NAME",
    "split": "SPLIT",
    "validation": "SPLIT",
    "ignore": "LABEL",
    "values": "VALUE=LABEL",
    "colors": "R,G,B=LABEL",
    "mask_suffix": "TEXT",
    "white": "VALUE",
    "weights": "NAME|FILE",
}
INSTANCES = ("two", "border")
AUGMENTATIONS = [
    *(f"flip={flip}" for flip in FLIPS if flip),
    *(f"{field.name}=" for field in dataclasses.fields(Augmentation) if field.name != "flip"),
    "none",
]
COMPLETERS = {
    "data": completion.data,
    "weights": completion.first_weights,
    "augment": completion.choices(AUGMENTATIONS),
}


def add_fields(parser, settings, names, required=(), choices=()):
    """Add an option for each of the named fields of a dataclass.

    An option is named as its field, with hyphens; its help is what the docstring of the
    class says under Args; what is not given is left to the dataclass.

    Args:
        parser: parser or group of `argparse`.
        settings: the dataclass.
        names: names of fields.
        required: those that must be given.
        choices: {name: the values that the dataclass takes}, for the help and the shell; the
            dataclass itself refuses others, and says which is near.
    """
    choices = {"instances": INSTANCES, **dict(choices)}
    types = typing.get_type_hints(settings)
    texts = help_of(settings)
    for name in names:
        text = _with_default(_spell_options(texts[name], texts), getattr(settings, name, None))
        how = _how(types[name])
        if name in choices:
            how["metavar"] = f"{{{','.join(choices[name])}}}"
        elif name in METAVARS:
            how["metavar"] = METAVARS[name]
        option = parser.add_argument(
            _option(name),
            dest=name,
            help=text.replace("%", "%%"),
            required=name in required,
            default=argparse.SUPPRESS,
            **how,
        )
        if name in choices:
            option.completer = completion.choices(choices[name])
        elif name in COMPLETERS:
            option.completer = COMPLETERS[name]


def _option(name):
    return OPTIONS.get(name, f"--{name.replace('_', '-')}")


def _spell_options(text, names):
    """Return a help without backticks, in which fields are named as the options that they are."""
    text = re.sub(r"`(\w+)`", lambda word: _option(word[1]) if word[1] in names else word[1], text)
    return text.replace("`", "")


def _with_default(text, default):
    """Return the help with the default that the field has, where it is a value and no rule."""
    if isinstance(default, bool | None) or default == PLANNED:
        return text
    return f"{re.sub(r' [(]default [^:)]*[)]', '', text)} (default {default})"


def help_of(settings):
    """Return {field: its text under Args}, of a dataclass and those it inherits from."""
    texts = {}
    for kind in reversed(settings.__mro__):
        section = re.search(r"Args:\n(.*?)\n\n", (kind.__doc__ or "") + "\n\n", re.DOTALL)
        entries = re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", section[1] if section else "", re.M)
        texts |= {name: re.sub(r"\s+", " ", text).rstrip(".") for name, text in entries}
    return {field.name: texts[field.name] for field in dataclasses.fields(settings)}


def collect(options, settings):
    """Return the arguments of the dataclass that options give."""
    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(settings)
        if hasattr(options, field.name)
    }
    for name in given.keys() & {"values", "colors"}:
        given[name] = mapping(name, given[name])
    if given.get("weights") == "none":
        given["weights"] = None
    if "augment" in given:
        given["augment"] = _make_augmentation(given["augment"])
    return given


def mapping(name, pairs):
    """Return a dictionary of the pairs of an option, or None where it was not given.

    Raises:
        ValueError: for one that comes twice, of which the last alone would count.
    """
    if pairs is None:
        return None
    table = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(
                f"{spell(name)} takes each value once. Received: {key} more than once. Leave out "
                "all but one."
            )
        table[key] = value
    return table


def _how(kind):
    """Return the arguments of `add_argument` for the type of a field."""
    kinds = [kind, *typing.get_args(kind)]
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    if Augmentation in kinds:
        return {"type": augmentation, "nargs": "+", "metavar": "NAME=VALUE"}
    if dict in kinds:
        return {"type": pixel_label, "nargs": "+"}
    if tuple[tuple, ...] in kinds:
        return {"type": color, "nargs": "+", "metavar": "R,G,B"}
    for item, metavar in ((int, "N"), (str, "NAME")):
        if tuple[item, ...] in kinds:
            return {"type": item, "nargs": "+", "metavar": metavar}
    if int in kinds:
        return {"type": int, "metavar": "N"}
    if float in kinds:
        return {"type": float, "metavar": "X"}
    return {"metavar": "NAME"}


def pixel_label(text):
    """Return (value, label) of 255=1, or (colour, label) of 128,64,128=1."""
    match = re.fullmatch(r"(-?\d+)=(-?\d+)|(\d+,\d+,\d+)=(-?\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            "each value or colour of the masks should come with its label, VALUE=LABEL or "
            f"RED,GREEN,BLUE=LABEL, all integers. Received: {text!r}. Write for example 0=0 255=1, "
            "or 0,0,0=0 128,64,128=1, without spaces."
        )
    value, label, rgb, its_label = match.groups()
    return (int(value), int(label)) if rgb is None else (color(rgb), int(its_label))


def color(text):
    """Return (red, green, blue) of 128,64,128."""
    try:
        red, green, blue = map(int, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"a colour should be three integers, RED,GREEN,BLUE. Received: {text!r}. Write for "
            "example 128,64,128, without spaces."
        ) from error
    return red, green, blue


def augmentation(text):
    """Return (name, value) of scale=0.25; None of none."""
    if text == "none":
        return None
    name, _, value = text.partition("=")
    try:
        if not value:
            raise ValueError
        if name == "flip":
            return name, None if value.lower() == "none" else value
        return name, float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "an augmentation should be none, or a name and its value, NAME=VALUE. Received: "
            f"{text!r}. Write for example flip=horizontal scale=0.25."
        ) from error


def _make_augmentation(pairs):
    """Return the augmentation that the option gives, with nothing besides."""
    if None in pairs and len(pairs) > 1:
        raise ValueError(
            f"{spell('augment')} takes none, or names with values. Received: both. Leave out none."
        )
    known = [field.name for field in dataclasses.fields(Augmentation)]
    given = mapping("augment", filter(None, pairs))
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"{spell('augment')} takes {', '.join(known)}, each as NAME=VALUE, or none. Received: "
            f"{', '.join(unknown)}.{suggest(unknown[0], known)}"
        )
    return Augmentation(**{"flip": None, **given}) if given else None
