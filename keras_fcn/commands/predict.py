"""`keras-fcn predict`: segment images."""

from pathlib import Path

from keras_fcn.commands.shared import add_model, check_channels, load_model, test_time_augmentation


def add(commands):
    predict = commands.add_parser(
        "predict",
        help="segment images",
        description="Writes DIR/<stem>.png, a palette PNG whose pixel values are the classes, and "
        "DIR/<stem>_overlay.png, the image with the classes laid over it and a legend.",
    )
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    add_model(predict)
    predict.add_argument("--output", type=Path, default=Path("predictions"), metavar="DIR")
    predict.set_defaults(run=run)


def run(options):
    from rich.progress import track

    from keras_fcn.datasets.files import read_image
    from keras_fcn.inference import predict_image
    from keras_fcn.visualize import overlay, write_label_map, write_png

    _check_stems(options.images)
    model, classes, palette = load_model(options.weights)
    averaging = test_time_augmentation(options)
    channels = model.input_shape[-1]
    check_channels(channels)
    options.output.mkdir(parents=True, exist_ok=True)
    written = []
    for path in track(options.images, "Predicting", transient=True):
        image = read_image(path, channels)
        label_map = predict_image(model, image, options.tile_size, **averaging).argmax(-1)
        label_file = options.output / f"{path.stem}.png"
        overlay_file = options.output / f"{path.stem}_overlay.png"
        write_label_map(label_file, label_map, palette)
        write_png(overlay_file, overlay(image, label_map, palette, classes))
        written.append(f"{path}: label map {label_file}, overlay {overlay_file}")
    print("\n".join(written))


def _check_stems(images):
    """Raise unless every image has a name, and so outputs, of its own."""
    by_stem = {}
    for path in images:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                "The outputs are named after the images, so their names should differ. Received: "
                f"'{other}' and '{path}'. Predict them into two folders."
            )
