"""What an evaluation has scored: so that the same one goes on, and another is refused."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keras_fcn.atomic import parse_json, remove_leftovers, replacing, telling_full, write_json
from keras_fcn.inference.ledger import check_same, read_record

FOLDER, RUN, COUNTS = ".scored", "run.json", "counts.jsonl"


class Scored:
    """The counts of the images that are scored, and the pictures of the worst, in a folder.

    Args:
        output: folder of the evaluation, locked.
        run: what the scores depend on besides the images, as JSON stores it.

    Raises:
        FileExistsError: when it holds the scores of another run.
    """

    def __init__(self, output: Path, run: dict):
        self.folder = output / FOLDER
        self.folder.mkdir(exist_ok=True)
        remove_leftovers(self.folder)
        self.counts = self._read_counts()  # {(name, digest): counts}
        before = read_record(self.folder / RUN)
        if before is not None and self.counts:
            check_same(output, "scores", before, run)
        elif before is None:
            self.counts = {}
        write_json(self.folder / RUN, run)
        with replacing(self.folder / COUNTS) as beside:  # without a line cut short
            beside.write_text("".join(_line(*item) for item in self.counts.items()))

    def add(self, name: str, digest: str, counts: Sequence) -> None:
        """Add an image that is scored.

        Args:
            name: of the image.
            digest: of `digest_of`.
            counts: integers, in lists, that its scores are made of.
        """
        self.counts[name, digest] = counts
        path = self.folder / COUNTS
        with telling_full(self.folder, path), path.open("a", encoding="utf-8") as file:
            file.write(_line((name, digest), counts))

    def keep(self, digest: str, panels: Sequence[Image.Image]) -> None:
        """Keep the pictures of an image that was among the worst when its turn came.

        The same evaluation asks for the same ones again.
        """
        with replacing(self.folder / f"{digest}.npz") as beside:
            np.savez_compressed(beside, *map(np.asarray, panels))

    def panels(self, digest: str) -> list[Image.Image] | None:
        """Return the pictures of an image, or None where they were not kept."""
        try:
            with np.load(self.folder / f"{digest}.npz") as arrays:
                return [Image.fromarray(arrays[f"arr_{n}"]) for n in range(len(arrays.files))]
        except Exception:  # of NumPy, zip or Pillow, for a damaged file: they are drawn again
            return None

    def _read_counts(self):
        path = self.folder / COUNTS
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        counts = {}
        for line in text[: text.rfind("\n") + 1].splitlines():
            try:
                name, digest, values = parse_json(line)
            except (ValueError, TypeError):  # damaged: it is scored again
                continue
            if [type(name), type(digest), type(values)] == [str, str, list]:
                counts[name, digest] = values
        return counts


def digest_of(image: np.ndarray, truth: np.ndarray) -> str:
    """Return a digest of an image and its map, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (image, truth):
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _line(key, counts):
    return json.dumps([*key, counts]) + "\n"
