"""`keras-fcn demo`: a page on this computer."""

from pathlib import Path

from keras_fcn.page.limits import Limits

EXAMPLE = "keras-fcn demo --port 8080"


def add(commands):
    """Add `keras-fcn demo` to the commands."""
    demo = commands.add_parser(
        "demo",
        help="look at models in the browser",
        description="Opens a page on this computer: what a model sees in a picture, two models "
        "side by side, and why a dense layer is a convolution. Pictures are not kept, and nothing "
        "is sent elsewhere.",
    )
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where the page can be reached (default %(default)s: from this computer)",
    )
    demo.add_argument(
        "--port",
        type=int,
        default=7860,
        metavar="N",
        help="0 for any free one (default %(default)s)",
    )
    demo.add_argument(
        "--max-pixels",
        type=int,
        default=Limits.pixels,
        metavar="N",
        help="of a picture (default %(default)s)",
    )
    demo.add_argument(
        "--max-megabytes",
        type=float,
        default=Limits.megabytes,
        metavar="N",
        help="of a picture (default %(default)s)",
    )
    demo.add_argument(
        "--vgg16",
        type=Path,
        metavar="FILE",
        help="VGG16's weights with its dense layers, as "
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5, for the second tab",
    )
    demo.set_defaults(run=run)


def run(options):
    """Run `keras-fcn demo`."""
    from keras_fcn.page.serving import serve

    limits = Limits(options.max_megabytes, options.max_pixels)
    serve(options.host, options.port, limits, options.vgg16, started=_tell)


def _tell(address):
    print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
