"""What can be wrong with a file of an image or a mask: the rule, and the fix."""

import contextlib
from pathlib import Path

from keras_fcn.remedies import spell

EXPORT = "Fetch or export the file again, as PNG for example."

# kind of problem: (the rule, the fix; a function where it names an argument)
PROBLEMS = {
    "unreadable": (
        "Files should be whole images of a format that Pillow or tifffile reads.",
        EXPORT,
    ),
    "not a file": (
        "An image or a mask should be a file.",
        "Pass the files in the folder, or remove the folder if it is none of the data.",
    ),
    "broken link": (
        "A symbolic link should name a file.",
        "Put the file there that the link names, or remove the link.",
    ),
    "no access": (
        "Files should be readable for you.",
        "Give yourself the right to read the file, as `chmod u+r FILE` does.",
    ),
    "large": (
        "Images should have no more pixels than a limit, which guards against files that fill the "
        "memory.",
        lambda: f"If the file is what it should be, raise the limit: {spell('max_pixels')}.",
    ),
    "frames": (
        "A file should hold one image.",
        "Export each page of the stack as a file of its own.",
    ),
    "bands": (
        "An image should have the channels that are wanted: gray becomes RGB and RGB becomes gray, "
        "but other bands have no such meaning.",
        "Save the bands that are wanted, for example with `tifffile.imwrite` or `numpy.save`, or "
        "use a network that takes as many as the file has.",
    ),
    "floats": (
        "Pixels that are floats do not say which value is white.",
        lambda: f"Pass {spell('white')}, the value that becomes 255, as {spell('white', 1)}.",
    ),
    "not finite": (
        "Pixels should be finite numbers.",
        "Replace them, for example with `numpy.nan_to_num`, and save the image again.",
    ),
    "negative": (
        "Pixels should be 0 or more.",
        "Add an offset to all images alike, so that the darkest pixel is 0.",
    ),
    "bright": (
        "Pixels should be at most `white`, the value that becomes 255.",
        lambda: f"Pass a larger {spell('white')}.",
    ),
    "lossy": (
        "Masks should be stored without loss, or labels appear that nobody drew.",
        "Export the masks again as PNG; renaming or converting the JPEG does not help.",
    ),
    "alpha": (
        "Masks should be opaque.",
        "Remove the transparency and save the masks again.",
    ),
    "rgb": (
        "The pixels of a mask should be class numbers; this one has colours.",
        lambda: (
            f"Pass the label of each colour, as {spell('colors', {(0, 0, 0): 0, (255, 0, 0): 1})}."
        ),
    ),
    "gray as rgb": (
        "A mask should have one channel; this one has three equal ones.",
        lambda: (
            "Save it as gray: `Image.open(path).convert('L').save(path)`; or pass the label of "
            f"each colour, as {spell('colors', {(0, 0, 0): 0, (255, 255, 255): 1})}."
        ),
    ),
    "one-hot": (
        "A mask should be one map of class numbers; this one has several channels, as one-hot "
        "masks have.",
        "Save the number of the class instead: `mask.argmax(-1)`, or `mask.argmax(0)` where the "
        "classes come first.",
    ),
    "fraction": (
        "The pixels of a mask should be integers.",
        "Save the class numbers as 8-bit PNG.",
    ),
    "label range": (
        "Labels should fit 32 bits.",
        "Number the classes from 0, or the objects from 1, and save the mask again.",
    ),
    "unknown color": (
        "Every colour of a mask should have a label.",
        lambda: (
            f"Add the colours to {spell('colors')}; soft edges mean that the mask was resized or "
            "smoothed: export it again with nearest-neighbour scaling."
        ),
    ),
    "unknown value": (
        "Every value of a mask should have a label.",
        lambda: f"Add the values to {spell('values')}.",
    ),
    "several masks": (
        "An image should have one mask, unless each of its masks shows one object.",
        lambda: (
            f"If so, pass {spell('instances', 'border')}: class 0 is background, 1 object, 2 the "
            "border between objects that touch."
        ),
    ),
    "size": (
        "A mask should have the size of its image.",
        "Export the mask at the image's size, or resize it with nearest-neighbour scaling.",
    ),
}


class FileError(ValueError):
    """A file that breaks a rule; `kind` is a key of `PROBLEMS`, `fix` one for this file or None."""

    def __init__(self, kind: str, path, what: str, fix: str | None = None):
        rule = PROBLEMS[kind][0]
        super().__init__(f"{rule} Received: '{path}', {what}. {fix or fix_of(PROBLEMS[kind])}")
        self.kind, self.path, self.what, self.fix = kind, Path(path), what, fix


def fix_of(entry: tuple) -> str:
    """Return the fix of an entry of a table, the last in it, in the words of the caller."""
    return entry[-1]() if callable(entry[-1]) else entry[-1]


def check_file(path) -> None:
    """Raise for what is there, but no file that can be read.

    Raises:
        FileError: for folders, broken symbolic links, empty and closed files.
        FileNotFoundError: when nothing is there.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise FileError("broken link", path, f"a link to '{path.readlink()}'")
    if path.is_dir():
        raise FileError("not a file", path, "a folder")
    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'.")
    if not path.is_file():
        raise FileError("not a file", path, "a device or a pipe")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise FileError("unreadable", path, "0 bytes")
    except PermissionError as error:
        raise FileError("no access", path, str(error.strerror)) from error


@contextlib.contextmanager
def reading(path):
    """Turn the errors of decoders, which are of many types, into `FileError`."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        raise FileError("unreadable", path, str(error) or type(error).__name__) from error
