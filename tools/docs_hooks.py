"""What `mkdocs build` does besides: pages from files outside docs/, the weights' table, the names.

MkDocs calls the functions named `on_...` (see `hooks` in mkdocs.yml), and mkdocstrings' Griffe the
extension `Examples`.
"""

import inspect
import posixpath
import re
import textwrap
from pathlib import Path

import griffe
from mkdocs.structure.files import File

import keras_fcn

ROOT = Path(__file__).resolve().parents[1]
# Pages that are files elsewhere in the repository.
PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples.md": "examples/README.md",
    "recipes.md": "weights/RECIPES.md",
}
# Sections of the reference, and the modules of `keras_fcn` whose public names they hold.
SECTIONS = {
    "Networks": ("fcn", "unet"),
    "Weights and classes": ("cards", "catalogue", "classes", "caffe", "vgg16"),
    "A dense layer is a convolution": ("convolutionize", "receptive_fields"),
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def on_config(config):
    """Put the changelog and how to contribute into the navigation, where they exist."""
    project = [
        page for page in ("changelog.md", "contributing.md") if (ROOT / PAGES[page]).exists()
    ]
    if project:
        config.nav.append({"Project": project})
    return config


def on_files(files, config):
    """Add the pages from elsewhere, and their pictures."""
    for page, source in PAGES.items():
        if not (ROOT / source).exists():
            continue
        text = (ROOT / source).read_text()
        for picture in PICTURE.findall(text):
            path = ROOT / source
            files.append(File.generated(config, picture, abs_src_path=path.with_name(picture)))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in the tables, and lead links to files of the repository to pages of these docs."""
    markdown = LINK.sub(lambda link: _lead(link, page.file.src_uri, files), markdown)
    for mark, make in {"the cards": cards_table, "the public names": reference}.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", make())
    return markdown


def _lead(link, page, files):
    """Return a link that leads from a page to the one that shows the file; else only its text."""
    text, target, anchor = link[1], link[2], link[3] or ""
    if "://" in target:
        return link[0]
    source = PAGES.get(page, f"docs/{page}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    shown = {source: page for page, source in PAGES.items()} | {"README.md": "index.md"}
    found = shown.get(file, file.removeprefix("docs/"))
    if not files.get_file_from_path(found):
        return text
    return f"[{text}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"


def cards_table():
    """Return the shipped weights as a Markdown table, from their cards."""
    lines = [
        "| name | network | parameters | data | classes | score | averaged | licence of the data |",
        "| --- | --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for name, card in keras_fcn.pretrained().items():
        scores = card["metric"]
        averaged = scores.get("with_test_time_augmentation", {})
        cells = (
            f"`{name}`",
            card["factory"],
            f"{card['parameters']:,}",
            card["dataset"],
            f"{len(card['classes'])}: {', '.join(card['classes'])}",
            f"{_describe(scores)} on {scores['split']}",
            _describe(averaged),
            card["data_licence"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _describe(scores):
    numbers = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    return ", ".join(
        f"{name.replace('_', ' ').replace('iou', 'IoU')} {value:.4g}"
        for name, value in numbers.items()
    )


def reference():
    """Return the sections of the reference: first what `keras_fcn` has itself, then its modules."""
    names, modules, shown = {}, {}, set()
    for name, place in keras_fcn._MODULES.items():
        value = getattr(keras_fcn, name)
        if inspect.ismodule(value):
            modules[name] = value
        else:
            shown.add(value)
            names.setdefault(place, []).append(entry(f"keras_fcn.{name}", value))
    sections = []
    for title, places in SECTIONS.items():
        sections += [f"## {title}", *(text for place in places for text in names.pop(place, ()))]
    sections += [
        "## Prediction, scores, search, export",
        *(text for texts in names.values() for text in texts),
    ]
    for name, module in modules.items():
        summary = inspect.getdoc(module).partition("\n\n")[0]
        entries = [
            entry(f"keras_fcn.{name}.{key}", value)
            for key, value in members(module)
            if not callable(value) or value not in shown
        ]
        sections += [f"## keras_fcn.{name}", summary, *entries] if entries else []
    return "\n\n".join(sections)


def members(module):
    """Return the names and values of the functions, classes and constants of a module."""
    public = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if _is_public(value, module)
    ]
    return [(name, getattr(module, name)) for name in public]


def _is_public(value, module):
    """Whether it is made in the module, under a name for others."""
    made_here = getattr(value, "__module__", "") == module.__name__
    return made_here and not value.__qualname__.startswith("_")


def entry(name, value):
    """Return mkdocstrings' block of a function, class or constant, titled as users import it."""
    place = f"{value.__module__}.{value.__qualname__}" if callable(value) else name
    label = name.rpartition(".")[2]
    return f"::: {place}\n    options:\n      heading: {name}\n      toc_label: {label}"


class Examples(griffe.Extension):
    """Makes of `Example:` and the unindented prompts below it a section that Griffe knows."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring and "\nExample:\n" in obj.docstring.value:
            before, example = obj.docstring.value.split("\nExample:\n", 1)
            prompts, *after = re.split(r"\n\n(?!>>>|\s|\.\.\.)", example.lstrip("\n"), maxsplit=1)
            parts = [before, "\nExamples:\n", textwrap.indent(prompts, "    "), "\n"]
            obj.docstring.value = "".join([*parts, *(f"\n{text}" for text in after)])
