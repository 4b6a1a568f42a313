"""`keras-fcn models`: list the pretrained weights."""

import json

from keras_fcn.commands.completion import names

EXAMPLE = "keras-fcn models unet_camvid"


def add(commands):
    """Add `keras-fcn models` to the commands."""
    models = commands.add_parser(
        "models",
        help="list the pretrained weights",
        description="Lists the pretrained weights, or prints the card of one as JSON: network, "
        "classes, data and its licence, scores, command, seed, hardware, sha256.",
    )
    name = models.add_argument(
        "name", nargs="?", metavar="NAME", help="print the card of these weights"
    )
    name.completer = names
    models.set_defaults(run=run, imports_keras=False)


def run(options):
    """Run `keras-fcn models`."""
    from keras_fcn.cards import find_card, pretrained

    if options.name is not None:
        print(json.dumps(find_card(options.name), indent=2))
    else:
        _print_models(pretrained())


def _print_models(cards):
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "network", "classes", "scores", show_lines=True)
    table.columns[0].no_wrap = True
    for name, card in cards.items():
        pixels = card["input"].partition(" ")[0]
        table.add_row(
            name,
            f"{card['factory']}\n{card['parameters'] / 1e6:.1f} M\n{pixels}",
            ", ".join(card["classes"]),
            _describe_metric(card["metric"]),
        )
    Console().print(table)
    print(
        "M: million parameters. Scores on validation images; in brackets with --tta.\n"
        "`keras-fcn models NAME`: its card."
    )


def _describe_metric(metric):
    """Return the scores of a card, one a line, and in brackets with test-time augmentation."""
    return "\n".join(
        f"{name.replace('_', ' ').replace('iou', 'IoU')} {metric[name]:.3f} ({averaged:.3f})"
        for name, averaged in metric["with_test_time_augmentation"].items()
    )
