"""`keras-fcn check-data`: find what is wrong with images and masks."""

from pathlib import Path

from keras_fcn.commands.fields import mapping
from keras_fcn.commands.shared import add_file_options, add_mask_options

EXAMPLE = "keras-fcn check-data --data data"


def add(commands):
    """Add `keras-fcn check-data` to the commands."""
    check = commands.add_parser(
        "check-data",
        help="find what is wrong with images and masks",
        description="Reads every image and mask, writes nothing, and prints what each class covers "
        "and what is wrong, with the fix. The exit status is 1 if there are errors. A file "
        "classes.csv in the folder of the masks, or above it, names the classes: label,name or "
        "label,name,red,green,blue.",
    )
    check.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder of images and masks, as `keras-fcn train` takes it; or the two folders:",
    )
    check.add_argument("--images", type=Path, metavar="DIR", help="a folder of images")
    check.add_argument("--masks", type=Path, metavar="DIR", help="0001.png belongs to 0001.jpg")
    check.add_argument("--classes", type=int, metavar="N", help="number of classes")
    add_mask_options(check, void="none, all labels are looked at")
    add_file_options(check)
    check.set_defaults(run=run)


def run(options):
    """Run `keras-fcn check-data`; return the exit status."""
    from keras_fcn.datasets import check_data, print_report

    given = {name for name in ("data", "images", "masks") if getattr(options, name)}
    if given not in ({"data"}, {"images", "masks"}):
        raise ValueError(
            "The data to check is given by --data DIR, or by --images DIR and --masks DIR. "
            f"Received: {' '.join(f'--{name}' for name in sorted(given)) or 'none of these'}."
        )
    report = check_data(
        options.data or options.images,
        options.masks,
        num_classes=options.classes,
        ignore=options.ignore,
        colors=mapping("colors", options.colors),
        values=mapping("values", options.values),
        white=options.white,
        mask_suffix=options.mask_suffix,
        instances=options.instances,
        max_pixels=options.max_pixels,
    )
    return print_report(report)
