"""List what a wheel or an sdist holds, and refuse it if a file is missing or too many.

python tools/check_distributions.py dist/*
"""

import argparse
import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = ("*.py", "py.typed", "*.css", "*.js")
METADATA = {
    ".whl": r"keras_fcn-[\d.]+\.dist-info/"
    r"(licenses/LICENSE|METADATA|WHEEL|entry_points\.txt|top_level\.txt|RECORD)",
    ".gz": r"LICENSE|MANIFEST\.in|PKG-INFO|README\.md|pyproject\.toml|setup\.cfg"
    r"|keras_fcn\.egg-info/(PKG-INFO|SOURCES\.txt|\w+\.txt)",
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("distributions", nargs="+", type=Path)
    wrong = {path: check(path) for path in parser.parse_args().distributions}
    for path, problems in wrong.items():
        print(f"{path.name}: {'; '.join(problems) or 'as it should be'}")
    return int(any(wrong.values()))


def check(path, root=ROOT):
    """Print the sizes and names in a distribution; return what is wrong with them."""
    sizes = read_sizes(path)
    for name, size in sorted(sizes.items()):
        print(f"{size:>12,} {name}")
    expected = expected_files(
        root, "keras_fcn/pretrained_weights" if path.suffix == ".whl" else "weights"
    )
    others = {
        name for name in sizes.keys() - expected if not re.fullmatch(METADATA[path.suffix], name)
    }
    return [
        *(f"{name} is missing" for name in sorted(expected - sizes.keys())),
        *(f"{name} does not belong there" for name in sorted(others)),
    ]


def read_sizes(path):
    """Return {name: bytes} of the files in a wheel, or in an sdist below its one folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {item.filename: item.file_size for item in wheel.infolist()}
    with tarfile.open(path) as sdist:
        files = [item for item in sdist if not item.isdir()]
        return {item.name.partition("/")[2]: item.size for item in files}


def expected_files(root, weights):
    """Return the names of the package's files; those of the weights lie in the folder `weights`."""
    code = {path for pattern in CODE for path in (root / "keras_fcn").rglob(pattern)}
    shipped = {path for pattern in ("*.h5", "*.json") for path in (root / "weights").glob(pattern)}
    return {path.relative_to(root).as_posix() for path in code} | {
        f"{weights}/{path.name}" for path in shipped
    }


if __name__ == "__main__":
    sys.exit(main())
