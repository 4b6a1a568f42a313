"""Which images are meant, and where their predictions go, checked before anything is written."""

import dataclasses
import fnmatch
import glob
import os
from collections.abc import Iterable
from pathlib import Path

from keras_fcn.datasets.files import SUFFIXES, natural_order
from keras_fcn.inference.formats import is_ours


@dataclasses.dataclass(frozen=True)
class Job:
    """An image, and the stem of its predictions."""

    image: Path
    stem: Path  # relative to the output folder, without suffix
    pages: int | None = None  # images of a stack

    @property
    def names(self) -> list[str]:
        """What the tables call it, or each of its pages."""
        if self.pages is None:
            return [str(self.stem)]
        return [f"{self.stem}#{page}" for page in range(self.pages)]

    def files(self, output: Path, formats: dict[str, str]) -> list[Path]:
        """Return the paths of its predictions, of {kind: suffix}; a PNG file holds no stack."""
        names = []
        for kind, suffix in formats.items():
            end = "" if kind == "labels" else f"_{kind}"
            suffix = ".tif" if self.pages and suffix == ".png" else suffix
            names.append(self.stem.with_name(f"{self.stem.name}{end}{suffix}"))
        return [output / name for name in names]


def find_jobs(source: str | os.PathLike | Iterable, output: str | os.PathLike) -> list[Job]:
    """Find the images of files, folders (with those in them) and patterns, as "slides/*/*.tif".

    Args:
        source: a path, or several.
        output: folder of the predictions; what is in it is no image, unless named itself.

    Returns:
        List of `Job`, in which the folders' structure is kept.

    Raises:
        FileNotFoundError: for a path that does not exist, and where no image is found.
        ValueError: where two images, or an image and a prediction, would share a file.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    output = Path(output)
    jobs = []
    for path in map(Path, sources):
        jobs += _expand(path, output.resolve())
    unique = {job.image.resolve(): job for job in reversed(jobs)}
    jobs = [job for job in jobs if unique[job.image.resolve()] is job]
    if not jobs:
        raise FileNotFoundError(
            "There should be an image to predict. Received: "
            f"{', '.join(repr(str(path)) for path in sources) or 'no path'}, where none is, with "
            f"one of the suffixes {', '.join(SUFFIXES)}. What is in the output folder "
            f"'{output}' counts only where it is named itself."
        )
    return jobs


def check_outputs(jobs: list[Job], output: Path, formats: dict[str, str]) -> None:
    """Raise where two predictions, or a prediction and an image, would be one file.

    Args:
        jobs: what is to be predicted.
        output: folder of the predictions.
        formats: what is written for each, as for `Job.files`.

    Raises:
        ValueError: naming both.
        FileExistsError: for a file that this package did not write.
    """
    images = {job.image.resolve(): job.image for job in jobs}
    written: dict[Path, Path] = {}
    named: dict[str, Path] = {}
    for job in jobs:
        for kind, file in zip(formats, job.files(output, formats), strict=True):
            if file.resolve() in images:
                raise ValueError(
                    "A prediction should not replace an image. Received: "
                    f"'{images[file.resolve()]}', which '{job.image}' would be written to. Choose "
                    "another output folder."
                )
            other = written.setdefault(file, job.image)
            if other is not job.image:
                raise ValueError(
                    "The outputs are named after the images, so their names should differ. "
                    f"Received: '{other}' and '{job.image}', both with an output '{file.name}'. "
                    "Predict them into two folders."
                )
            if file.exists() and not is_ours(file, output, f"{kind}{file.suffix}"):
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
    chosen = [
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and output not in path.resolve().parents
    ]
    chosen.sort(key=lambda path: (path.parent, natural_order(path)))
    return [Job(path, path.relative_to(folder).with_suffix("")) for path in chosen]
