"""`keras-fcn check-data`: find what is wrong with images and masks."""

from keras_fcn.commands.shared import add_file_options, add_folders, add_mask_options, mapping


def add(commands):
    check = commands.add_parser(
        "check-data",
        help="find what is wrong with images and masks",
        description="Reads every image and mask, writes nothing, and prints what each class covers "
        "and what is wrong, with the fix. The exit status is 1 if there are errors. A file "
        "classes.csv in the folder of the masks, or above it, names the classes: label,name or "
        "label,name,red,green,blue.",
    )
    add_folders(check)
    check.add_argument("--classes", type=int, metavar="N", help="number of classes")
    add_mask_options(check)
    add_file_options(check)
    check.set_defaults(run=run)


def run(options):
    from keras_fcn.datasets import check_data, print_report

    report = check_data(
        options.images,
        options.masks,
        num_classes=options.classes,
        ignore=options.ignore,
        colors=mapping(options.colors),
        values=mapping(options.values),
        white=options.white,
        mask_suffix=options.mask_suffix,
        instances=options.instances,
        max_pixels=options.max_pixels,
    )
    return print_report(report)
