import configparser
import contextlib
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import sklearn.datasets
from conftest import narrow_networks, narrow_search, run_eagerly, ship_small
from PIL import Image

import keras_fcn
from keras_fcn import pretrained
from keras_fcn.commands import COMMANDS, main
from keras_fcn.datasets.folder import LAYOUTS
from keras_fcn.private import without_numbers
from keras_fcn.tuning.hypermodels import _count_parameters as count_parameters

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]
# so that the commands take seconds; of options given twice the last counts
SMALL = {
    "train": "--epochs 1 --steps 2 --crop-size 32",
    "tune": "--trials 1 --epochs 1 --steps 1 --crop-size 32",
}


# All that a reader of the repository may look at.
TEXTS = [*PAGES, "examples/README.md", "weights/RECIPES.md"]
TEXTS += ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


# What makes an environment, and goes into it.
ENVIRONMENT = ("python3 -m venv .venv", ". .venv/bin/activate")


def read_blocks(page):
    """Return the language and the text of each block of code of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of TFDS, in which what one page has drawn serves the next."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of the images and masks that the pages have."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for number in range(5):
        labels = np.kron(rng.integers(0, 2, (5, 7)), np.ones((8, 8))).astype("uint8")
        for kind, pixels in (("images", np.dstack([labels * 200] * 3)), ("masks", labels)):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            name = f"{number:04}.{'jpg' if kind == 'images' else 'png'}"
            Image.fromarray(pixels).save(folder / "data" / kind / name)
    (folder / "photos").mkdir()
    photo = Image.open(Path(sklearn.datasets.__file__).with_name("images") / "china.jpg")
    for number in range(10):
        left = 40 * number
        photo.crop((left, 250, left + 120, 340)).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch, files, drawn):
    """A folder to work in, with images and masks."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(drawn))
    monkeypatch.setattr("keras_fcn.page.serving.bind", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("keras_fcn.page.serving.serve", lambda *_, **__: None)  # until Ctrl-C
    return tmp_path


def run_line(line):
    """Run a line of a shell block: our command; of others, check that what they name exists."""
    program, *words = shlex.split(line, comments=True) or [""]
    if program == "keras-fcn":
        run_command(words)
    elif program == "python":
        assert (ROOT / words[0]).is_file(), line  # other tests run the scripts
    elif program == "pip":
        check_install(words)
    else:
        assert program in ("", "mkdocs") or line in ENVIRONMENT, line


def run_command(words):
    small = SMALL.get(words[0], "").split()
    if words[0] == "train" and not {"--from-tuning", "--model", "--weights"} & set(words):
        small += ["--filters", "4", "8"]
    if "--from-tuning" in words:
        small = small[:4]  # its crops are those of the search
    words = [match for word in words for match in sorted(map(str, Path().glob(word))) or [word]]
    # graphs of two steps: the trainings of the pages' Python code have them
    with run_eagerly() if words[0] in SMALL else contextlib.nullcontext():
        assert main([*words, *small]) == 0, shlex.join(words)


def check_install(words):
    """What pip is asked for is this package, with extras that it has."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(setup["options.extras_require"]), words


def run_page(page):
    """Run the blocks of a page as a reader types them, in one session; return its names."""
    namespace = {}
    blocks = read_blocks(page)
    if page == "README.md":  # CI runs the two lines of the quick start
        quick_start = next(text for language, text in blocks if language == "sh")
        assert quick_start.count("\n") == 2
        blocks.remove(("sh", quick_start))
    for language, text in blocks:
        assert language in ("", "python", "sh"), f"{page}: nobody runs a block of {language}"
        if language == "python":
            if page == "docs/questions.md":  # each answer stands by itself
                namespace = {}
            exec(compile(text, page, "exec"), namespace)
        elif language == "sh":
            for line in text.splitlines():
                run_line(line)
    return namespace


# Pages on which networks that ship are trained, exported or quantised, or predict over and over:
# small ones do it here. On the others they are those that ship.
LARGE = ["README.md"]
LARGE += [f"docs/guides/{name}.md" for name in ("deployment", "large_images", "objects", "speed")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")
def test_code_of_a_page_runs(page, workplace, monkeypatch, tmp_path_factory, capsys):
    if page in LARGE:
        ship_small(monkeypatch, tmp_path_factory.mktemp("ships"), "unet_camvid", "unet_isbi2012")
    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        namespace = run_page(page)
    if page == "README.md":
        check_readme(namespace)
    elif page == "docs/guides/transfer.md":
        check_comparison(page, capsys.readouterr().out, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore")
def test_example_of_the_help_runs(command, workplace, monkeypatch, tmp_path_factory):
    (workplace / "photo.jpg").write_bytes((workplace / "data" / "images" / "0001.jpg").read_bytes())
    (workplace / "runs" / "first").mkdir(parents=True)
    name = command.__name__.rpartition(".")[2]
    if name == "evaluate":
        keras_fcn.UNet(filters=(4, 8)).save("runs/first/model.keras")
    elif name == "export":
        ship_small(monkeypatch, tmp_path_factory.mktemp("ships"), "unet_camvid")
    elif name == "tune":
        narrow_search(monkeypatch)
    run_line(command.EXAMPLE)


def check_readme(namespace):
    assert namespace["probabilities"].shape == (40, 57, 2)
    assert np.isfinite(namespace["history"].history["val_mean_iou"]).all()


def check_comparison(page, output, monkeypatch):
    """The table on the page is the one that `compare` prints of VGG16 in full width."""
    assert "(224, 224) (32, 32)" in output
    table = (ROOT / page).read_text().split("among the rest,\n\n```\n")[1]
    table = table.split("```")[0].splitlines()
    assert len(table) > 3
    printed = {line.partition(" ")[0] for line in output.splitlines()}  # with fewer filters
    assert {line.partition(" ")[0] for line in table} <= printed
    assert set(table) <= set(str(compare_shapes(monkeypatch)).splitlines())


def compare_shapes(monkeypatch):
    """`compare` VGG16 in full width, with shapes only: its numbers would take gigabytes."""
    for name in ("copy_state", "_check_equal"):
        monkeypatch.setattr(f"keras_fcn.convolutionize.{name}", lambda *_: None)
    monkeypatch.setattr("keras_fcn.convolutionize._outputs", lambda *_: np.zeros(1000))
    with without_numbers():
        return keras_fcn.compare(keras.applications.VGG16(weights=None))


# Pages of the site that are files elsewhere in the repository.
SHOWN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "weights/RECIPES.md": "recipes.md",
}


def links_of(page):
    """Return [(text, file, #anchor)] of the links and pictures of a page, not to elsewhere."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    links = re.findall(r"\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)", text)
    return [link for link in links if "://" not in link[1]]


def slugs_of(page):
    """Return the anchors that GitHub, and the site, make of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere_in_the_repository(page):
    for text, target, anchor in links_of(page):
        file = Path(os.path.normpath(Path(page).parent / target)) if target else Path(page)
        assert (ROOT / file).exists(), (text, target)
        if anchor and file == Path("docs/api.md"):  # whose names are filled in on the site
            pkgutil.resolve_name(anchor[1:])
        elif anchor:
            assert anchor[1:] in slugs_of(file), (text, target, anchor)


def test_the_first_page_leads_to_every_guide():
    """And to what else the site has in its navigation; the README leads to the first page."""
    led = {target for _, target, _ in links_of("docs/index.md")}
    nav = re.findall(r"^ +- ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")} <= set(nav)
    elsewhere = {"index.md", "examples.md", "recipes.md"}
    assert set(nav) - elsewhere <= led
    assert "docs/index.md" in {target for _, target, _ in links_of("README.md")}


def test_extras_are_installed_in_one_way():
    """By the name of the installed package, which works in any folder, and asks no index for it."""
    files = [*TEXTS, "mkdocs.yml", *(str(path) for path in ROOT.glob("benchmarks/*.py"))]
    files += [str(path) for path in ROOT.glob("keras_fcn/**/*.py")]
    otherwise = []
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            if re.search(r"pip install\b[^`]*\.\[", line):
                otherwise.append((file, line.partition("pip install")[2]))
    tests = " -e '.[test]'"  # which need the checkout, in the first line of all
    assert {file for file, _ in otherwise} == {"README.md", "CONTRIBUTING.md"}
    assert all(rest.startswith(tests) for _, rest in otherwise)


def test_the_reference_has_all_public_names(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    text = importlib.import_module("docs_hooks").reference()
    titles = set(re.findall(r"heading: (\S+)", text))
    shown = set(re.findall(r"^::: (\S+)", text, re.M))
    for name in keras_fcn._MODULES:
        value = getattr(keras_fcn, name)
        if not inspect.ismodule(value):
            assert f"keras_fcn.{name}" in titles
            continue
        names = getattr(value, "__all__", None) or [
            key
            for key, what in vars(value).items()
            if not key.startswith("_") and getattr(what, "__module__", None) == value.__name__
        ]
        for key in names:
            what = getattr(value, key)
            constant = f"keras_fcn.{name}.{key}"
            place = f"{what.__module__}.{what.__qualname__}" if callable(what) else constant
            assert place in shown, f"{name}.{key}"


@pytest.mark.slow
def test_site_builds_and_asks_nothing_of_the_network(tmp_path):
    """`mkdocs build --strict`; and no page of it loads anything from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run([*command, "--site-dir", tmp_path], cwd=ROOT, check=True)
    pages = sorted(tmp_path.glob("**/*.html"))
    assert {page.stem for page in pages} >= {Path(page).stem for page in PAGES[1:]}
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?([^\"' >]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|icon|preload)\"[^>]*>", text)
        assert [address for address in loaded if "//" in address] == [], page
    public = re.findall(r'id="keras_fcn\.([\w.]+)"', (tmp_path / "api.html").read_text())
    assert len(public) > 20
    for page in PAGES[1:]:
        html = Path(page).relative_to("docs").with_suffix(".html")
        text = (tmp_path / html).read_text()
        for _, target, anchor in links_of(page):
            file = os.path.normpath(Path(page).parent / target)
            shown = SHOWN.get(file, file.removeprefix("docs/"))
            place = os.path.relpath(shown, html.parent).replace(".md", ".html")
            assert f'href="{place}{anchor}"' in text or target.endswith(".png"), (page, target)


@pytest.mark.slow
def test_figures_are_made_and_shown(tmp_path):
    """`make_figures.py` makes the figures that the pages show, small, and no others."""
    forked.run([ROOT / "tools" / "make_figures.py", "--output", tmp_path], check=True)
    made = {path.name: path for path in tmp_path.iterdir()}
    kept = {path.name: path for path in (ROOT / "docs" / "figures").iterdir()}
    text = "".join((ROOT / page).read_text() for page in PAGES)
    shown = set(re.findall(r"figures/(\w+\.png)", text))
    assert set(made) == set(kept) == shown
    for name, path in made.items():
        assert Image.open(path).size == Image.open(kept[name]).size, name
        assert kept[name].stat().st_size < 60_000, name


def test_readme_tells_of_the_weights_what_their_cards_say():
    readme = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", readme, re.M))
    assert set(rows) == set(pretrained())
    for name, card in pretrained().items():
        told = [f"{card['parameters'] / 1e6:.1f} million parameters"]
        for metric in (card["metric"], card["metric"]["with_test_time_augmentation"]):
            told += [f"{metric[score]:.4f}" for score in ("rand", "information") if score in metric]
            told += [] if "rand" in metric else [f"{metric['mean_iou']:.1%}"]
        assert [text for text in told if text not in rows[name]] == []


# An example in a process where Keras's VGG16 has few filters.
NARROW = """
import runpy, sys
import pytest
from conftest import narrow_keras_networks
narrow_keras_networks(pytest.MonkeyPatch())
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_example_dense_is_convolution_runs(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "examples" / "dense_is_convolution.py"
    picture = tmp_path / "heat_map.png"
    result = forked.run(["-c", NARROW, script, "--output", picture], check=True)
    assert "y = [[[118.0, 545.0], [1108.0, 5333.0], [11008.0, 53213.0]]]" in result.stdout
    assert "fc1                1568x64         7x7x32x64       100,416" in result.stdout
    assert "dense layers: 169,576 of " in result.stdout
    assert "A photograph of 427x640 gives 7x14 predictions" in result.stdout
    assert Image.open(picture).size == (640, 427)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_fcn.__path__, "keras_fcn.")
    if not module.name.endswith(("__main__", "pretrained_weights"))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, workplace):
    module = importlib.import_module(name)
    package = importlib.import_module(name.rpartition(".")[0])
    names = {
        public: getattr(place, public)
        for place in (keras_fcn, package)
        for public in getattr(place, "__all__", ())
    }
    assert doctest.testmod(module, extraglobs=names).failed == 0


CALLS = re.findall(r"(`(?:FCN|UNet).*?) \| ([\d,]+) \|", (ROOT / "docs" / "models.md").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("calls, parameters", CALLS)
def test_table_of_models_counts_right(calls, parameters):
    for call in re.findall(r"`(\w+\(.*?\))`", calls):
        name, arguments = call.split("(", 1)
        arguments = eval(f"dict({arguments}", {})
        count = count_parameters(getattr(keras_fcn, name), arguments)
        assert f"{count:,}" == parameters, call


def test_guide_shows_the_layouts_that_are_known():
    guide = (ROOT / "docs" / "guides" / "own_data.md").read_text().splitlines()
    layouts = [line.strip() for line in LAYOUTS.splitlines() if line.strip()]
    assert [line for line in layouts if line not in guide] == []
