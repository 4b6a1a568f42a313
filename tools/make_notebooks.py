"""Make the notebooks of the examples again.

    python tools/make_notebooks.py

Writes examples/notebooks/*.ipynb from the scripts, without outputs, so that the same scripts give
the same files. A notebook has no command line: there the options stand in the list given to
`parse_args`. It needs jupytext.
"""

from pathlib import Path

import jupytext
import nbformat

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = [
    "dense_is_convolution",
    "finetune_few_images",
    "finetune_imagenet",
    "finetune_tfds",
    "own_classifier",
    "predict_large_image",
    "serve",
    "train_em",
    "tune",
]


def to_notebook(script):
    """Return a script in jupytext's percent format as the text of a notebook."""
    source = jupytext.read(script)
    cells = source.cells
    cells[0].source = f"# {cells[0].source}"  # its first line is the title
    show = "from IPython import display\n\ndisplay.Image(filename=options.output)"
    cells.append(nbformat.v4.new_code_cell(show))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        # a notebook's own command line is Jupyter's
        cell.source = cell.source.replace("parse_args()", "parse_args([])")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    folder = EXAMPLES / "notebooks"
    folder.mkdir(exist_ok=True)
    for name in SCRIPTS:
        (folder / f"{name}.ipynb").write_text(to_notebook(EXAMPLES / f"{name}.py"))
        print(folder / f"{name}.ipynb")
