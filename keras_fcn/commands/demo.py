"""`keras-fcn demo`: a page on this computer."""

from pathlib import Path


def add(commands):
    """Add `keras-fcn demo` to the commands."""
    demo = commands.add_parser(
        "demo",
        help="look at models in the browser",
        description="Opens a page on this computer: what a model sees in a picture, two models "
        "side by side, and why a dense layer is a convolution. Pictures are not kept, and nothing "
        "is sent elsewhere. Example: keras-fcn demo --port 8080",
    )
    demo.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="(default 127.0.0.1: this computer)"
    )
    demo.add_argument(
        "--port", type=int, default=7860, metavar="N", help="0 for any free one (default 7860)"
    )
    demo.add_argument("--max-pixels", type=int, metavar="N", help="of a picture (default 16000000)")
    demo.add_argument("--max-megabytes", type=float, metavar="N", help="of a picture (default 20)")
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
    from keras_fcn.page.pictures import Limits
    from keras_fcn.page.serving import serve

    given = {"pixels": options.max_pixels, "megabytes": options.max_megabytes}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    serve(options.host, options.port, limits, options.vgg16, started=_tell)


def _tell(address):
    print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
