"""The cards of the weights that ship: listed, found, and their files verified."""

import hashlib
import os
from pathlib import Path

from keras_fcn.arguments import suggest
from keras_fcn.atomic import parse_json
from keras_fcn.classes import Classes
from keras_fcn.remedies import choose

# Arguments of a factory that may differ from the card's: they change no weight.
FREE_ARGUMENTS = {"weights", "name", "classifier_activation", "dropout", "include_preprocessing"}

NEEDED = ("name", "factory", "arguments", "classes", "palette", "file", "sha256")


def pretrained() -> dict[str, dict]:
    """Return the cards of the weights that ship with the package, by name.

    Returns:
        Dict of dicts: what the network is, what it was trained on and how, its
        metric, and the file with its sha256.

    Example:

    >>> pretrained()["unet_camvid"]["arguments"]["num_classes"]
    11
    """
    cards = [_read_card(path) for path in sorted(_directory().glob("*.json"))]
    return {card["name"]: card for card in cards}


def _read_card(path):
    try:
        card = parse_json(path.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED if key not in card]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"A card should be a JSON file. Received: {str(path)!r}, which is damaged: {error}. "
            "Reinstall the package."
        ) from error
    if missing:
        raise ValueError(
            f"A card should have the entries {', '.join(NEEDED)}. Received: {str(path)!r} without "
            f"{', '.join(missing)}. Reinstall the package."
        )
    return card


def classes_on(card: dict) -> Classes:
    """Return the classes that a card tells."""
    return Classes(
        card["classes"],
        card["palette"],
        ignore=card["ignore_label"],
        data=card["dataset"],
        objects=card.get("objects"),
    )


def find_card(name: str) -> dict:
    """Return the card of the weights of a name.

    Raises:
        ValueError: for an unknown name.
    """
    cards = pretrained()
    if name not in cards:
        also = choose(
            "the `weights` of a factory may also be None, 'imagenet', 'pascal_voc', or the path of "
            "a `.weights.h5` or `.keras` file",
            "a model of your own is the path of a `.keras` file, and the `--help` of a command "
            "says what else it takes",
            page="a model of your own is the path of a `.keras` file",
        )
        raise ValueError(
            f"Pretrained weights go by the names {sorted(cards)}; {also}. "
            f"Received: {name!r}.{suggest(name, [*cards, 'imagenet', 'pascal_voc'])}"
        )
    return cards[name]


def verified_file(card: dict) -> Path:
    """Return the path of the weights file of a card, after a check of its sha256.

    Raises:
        FileNotFoundError: when the file is missing.
        ValueError: when it is not the card's.
    """
    path = _directory() / card["file"]
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights {card['name']!r} should be in {str(path)!r}, and there is no such file. "
            "Reinstall the package."
        )
    if (received := sha256(path)) != card["sha256"]:
        raise ValueError(
            f"The file {str(path)!r} should have the sha256 {card['sha256']}. "
            f"Received: {received}. It is damaged or changed; reinstall the package."
        )
    return path


def check_card(card: dict, factory: str, arguments: dict) -> None:
    """Raise unless the card's network is the one that the arguments describe."""
    expected = {"factory": card["factory"], **card["arguments"]}
    received = {"factory": factory, **arguments}
    for name in [name for name in expected if name not in FREE_ARGUMENTS]:
        ours, theirs = expected[name], received.get(name)
        if name == "input_shape" and theirs is not None:  # any height and width
            ours, theirs = ours[-1], theirs[-1]
        if ours != (list(theirs) if isinstance(theirs, tuple) else theirs):
            raise ValueError(
                f"The weights {card['name']!r} belong to {name}={expected[name]!r}. Received: "
                f"{name}={received.get(name)!r}. Pass the same, or call "
                f"`keras_fcn.from_pretrained({card['name']!r}, num_classes=...)`, which builds "
                "the network of the card."
            )


def sha256(path: str | os.PathLike) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _directory():
    """The weights: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "pretrained_weights"
    return installed if installed.is_dir() else package.parent / "weights"
