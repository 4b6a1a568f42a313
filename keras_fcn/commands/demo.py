"""`keras-fcn demo`: a page on this computer."""

import argparse
from pathlib import Path

from keras_fcn.commands.quiet import import_quietly
from keras_fcn.commands.shared import count
from keras_fcn.page.limits import Limits

EXAMPLE = "keras-fcn demo --port 8080"
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins


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
        type=_port,
        default=7860,
        metavar="N",
        help="0 for any free one (default %(default)s)",
    )
    demo.add_argument(
        "--max-pixels",
        type=count,
        default=Limits.pixels,
        metavar="N",
        help="the most pixels of a picture (default %(default)s)",
    )
    demo.add_argument(
        "--max-megabytes",
        type=_megabytes,
        default=Limits.megabytes,
        metavar="X",
        help="the largest file of a picture (default %(default)s)",
    )
    demo.add_argument(
        "--vgg16",
        type=Path,
        metavar="FILE",
        help="VGG16's weights with its dense layers, as "
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5, for the second tab",
    )
    demo.set_defaults(run=run, imports_keras=False)  # until what is given has been looked at


def run(options):
    """Run `keras-fcn demo`."""
    from keras_fcn.page.serving import bind, serve

    limits = Limits(options.max_megabytes, options.max_pixels)
    if options.vgg16 is not None:
        _check_vgg16(options.vgg16)
    with bind(options.host, options.port) as listening:
        import_quietly()
        serve(listening, options.host, limits, options.vgg16, started=_tell)


def _check_vgg16(path):
    """Raise for what can't be a file of weights."""
    if not path.is_file():
        raise FileNotFoundError(
            f"VGG16's weights should be in a file. Received: --vgg16 {path}, which is none. Fetch "
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5, as `keras.applications.VGG16()` does "
            "into ~/.keras/models, or leave --vgg16 out."
        )
    with path.open("rb") as file:
        if file.read(len(HDF5)) != HDF5:
            raise ValueError(
                f"VGG16's weights should be an HDF5 file. Received: --vgg16 {path}, which is none. "
                "Fetch it again, or leave --vgg16 out."
            )


def _port(text):
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(
            f"it should be an integer from 0 to 65535. Received: {text!r}. 0 takes any free one."
        )
    return int(text)


def _megabytes(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"it should be a finite number above 0. Received: {text!r}. 20 is the default."
        )
    return value


def _tell(address):
    print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
