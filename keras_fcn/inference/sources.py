"""Which images are meant, and where their predictions go, checked before anything is written."""

import dataclasses
import fnmatch
import glob
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from keras_fcn.datasets.files import SUFFIXES, is_other, natural_order
from keras_fcn.inference.addresses import Store, below, identity, place_of


@dataclasses.dataclass(frozen=True)
class Job:
    """An image, and the stem of its predictions."""

    image: Path | str  # a path, or an address of fsspec
    stem: Path  # relative to the output folder, without suffix
    pages: int | None = None  # images of a stack
    changed: float | None = None  # when what is at an address was, in seconds
    done: bool = False  # by an earlier run: it is only in the network with those of its batch

    @property
    def identity(self) -> str:
        """The one name of the image."""
        return identity(self.image)

    @property
    def names(self) -> list[str]:
        """What the tables call it, or each of its pages."""
        if self.pages is None:
            return [str(self.stem)]
        return [f"{self.stem}#{page}" for page in range(self.pages)]

    def files(self, output: Path | str, formats: dict[str, str]) -> list[Path | str]:
        """Return the places of its predictions, of {kind: suffix}."""
        return [below(output, name) for name in self.file_names(formats)]

    def file_names(self, formats: dict[str, str]) -> list[Path]:
        """Return the paths of its predictions in a folder; a PNG file holds no stack."""
        names = []
        for kind, suffix in formats.items():
            end = "" if kind == "labels" else f"_{kind}"
            suffix = ".tif" if self.pages and suffix == ".png" else suffix
            names.append(self.stem.with_name(f"{self.stem.name}{end}{suffix}"))
        return names


def find_jobs(source: str | os.PathLike | Iterable, output: str | os.PathLike) -> list[Job]:
    """Find the images of files, folders (with those in them) and patterns, as "slides/*/*.tif".

    Args:
        source: a path or an address of fsspec, or several.
        output: folder of the predictions; what is in it is no image, unless named itself.

    Returns:
        List of `Job`, in which the folders' structure is kept.

    Raises:
        FileNotFoundError: for a path that does not exist, and where no image is found.
        ValueError: where two images, or an image and a prediction, would share a file.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    output = place_of(output)
    jobs = []
    for place in map(place_of, sources):
        if isinstance(place, Path):
            inside = output.resolve() if isinstance(output, Path) else None
            jobs += _expand(place, inside)
        else:
            jobs += _expand_address(place, output)
    unique = {job.identity: job for job in reversed(jobs)}
    jobs = [job for job in jobs if unique[job.identity] is job]
    if not jobs:
        raise FileNotFoundError(
            "There should be an image to predict. Received: "
            f"{', '.join(repr(str(path)) for path in sources) or 'no path'}, where none is, with "
            f"one of the suffixes {', '.join(SUFFIXES)}. What is in the output folder "
            f"'{output}' counts only where it is named itself."
        )
    return jobs


def check_outputs(
    jobs: list[Job],
    output: Path | str,
    formats: dict[str, str],
    is_foreign: Callable[..., bool],
) -> None:
    """Raise where two predictions, or a prediction and an image, would be one file.

    Args:
        jobs: what is to be predicted.
        output: folder or address of the predictions.
        formats: what is written for each, as for `Job.files`.
        is_foreign: function that says of a file and its format, as "labels.npy", whether it
            exists and this package did not write it.

    Raises:
        ValueError: naming both.
        FileExistsError: for a file that this package did not write.
    """
    images = {job.identity: job.image for job in jobs}
    written: dict[Path | str, Path | str] = {}
    named: dict[str, Path | str] = {}
    for job in jobs:
        for kind, file in zip(formats, job.files(output, formats), strict=True):
            if identity(file) in images:
                raise ValueError(
                    "A prediction should not replace an image. Received: "
                    f"'{images[identity(file)]}', which '{job.image}' would be written to. Choose "
                    "another output folder."
                )
            other = written.setdefault(file, job.image)
            name = PurePosixPath(str(file)).name
            if other is not job.image:
                raise ValueError(
                    "The outputs are named after the images, so their names should differ. "
                    f"Received: '{other}' and '{job.image}', both with an output '{name}'. "
                    "Predict them into two folders."
                )
            if is_foreign(file, f"{kind}{PurePosixPath(name).suffix}"):
                raise FileExistsError(
                    f"'{file}' exists, and keras_fcn did not write it. Choose another output "
                    "folder, or move the file."
                )
        for name in job.names:
            other = named.setdefault(name, job.image)
            if other is not job.image:
                raise ValueError(
                    "The tables name an image by its stem, and the pages of a stack STEM#0 and so "
                    f"on, so these should differ. Received: '{other}' and '{job.image}', both with "
                    f"{name!r}. Predict them into two folders."
                )


def _expand(path, output):
    """Return the jobs of one path."""
    if path.is_dir():
        return _below(path, _walk(path), output)
    if path.exists() or not glob.has_magic(str(path)):
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder '{path}'.")
        return [Job(path, Path(path.stem))]
    base = Path(*path.parts[: _first_magic(path)])
    return _below(base, _match(base, path.relative_to(base).parts), output)


def _match(folder, parts):
    """Yield what is in a folder and matches the parts of a pattern, of which ** is any folders.

    `Path.glob` would leave closed folders out in silence.
    """
    if not parts:
        yield folder
        return
    if not folder.is_dir():
        return
    first, *rest = parts
    if first == "**":
        places = [folder, *(path for path in _walk(folder) if path.is_dir())]
        for place in places:
            yield from _match(place, rest)
        return
    for path in [folder / first] if first == os.pardir else folder.iterdir():
        if fnmatch.fnmatch(path.name, first):
            yield from _match(path, rest)


def _walk(folder):
    """Yield what is in a folder and deeper.

    `rglob` would leave closed folders out in silence, and those that are symbolic links.
    """

    def refuse(error):
        raise error

    seen = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above, for example
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in (*folders, *files))


def _first_magic(path):
    return next(i for i, part in enumerate(path.parts) if glob.has_magic(part))


def _below(folder, paths, output):
    """Return the jobs of the images among paths below a folder, in order of name."""
    named = {path.relative_to(folder): path for path in paths}
    _tell_others(named.values(), output)
    chosen = [name for name in named if _is_image(name) and output not in _parents(named[name])]
    chosen.sort(key=_order)
    return [Job(named[name], name.with_suffix("")) for name in chosen]


def _tell_others(paths, output):
    """Warn of images and arrays that are left out, as they are of another kind."""
    others = sorted(path for path in paths if is_other(path) and output not in _parents(path))
    if others:
        warnings.warn(
            f"Images should be files of the kinds {', '.join(SUFFIXES)}; others are left out. "
            f"Received: {len(others)} others, the first '{others[0]}'. If they are to be "
            "predicted, save them as one of these, for example as PNG.",
            stacklevel=2,
        )


def _expand_address(address, output):
    """Return the jobs of one address: of a file, of what is below it, or of a pattern."""
    parts = address.split("/")
    magic = next((n for n, part in enumerate(parts) if n > 2 and glob.has_magic(part)), None)
    if magic is not None:
        base = "/".join(parts[:magic])
        found = Store(address).glob()
    else:
        base = address
        found = {
            f"{address}/{name}" if name else address: time
            for name, time in Store(address).find().items()
        }
        if list(found) == [address]:
            return [Job(address, Path(PurePosixPath(address).stem), changed=found[address])]
        if not found:
            raise FileNotFoundError(f"There is nothing at '{address}'.")
    named = {Path(place.removeprefix(f"{base}/")): place for place in found}
    inside = f"{output}/"
    chosen = [name for name in named if _is_image(name) and not named[name].startswith(inside)]
    chosen.sort(key=_order)
    return [Job(named[name], name.with_suffix(""), changed=found[named[name]]) for name in chosen]


def _is_image(name):
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


def _order(name):
    return name.parent, natural_order(name)


def _parents(path):
    return path.resolve().parents
