"""Make the figures of the documentation's questions again.

    python tools/make_figures.py

Writes them into docs/figures/. Sizes and parameters are read from the networks; the photograph
comes with scikit-learn, and the classes on it are those that `unet_camvid` sees. Nothing is
downloaded. It needs scikit-learn and Matplotlib.
"""

import argparse
import io
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import keras_fcn
from keras_fcn.vgg16 import BLOCKS
from keras_fcn.visualize import load_matplotlib, write_png
from keras_fcn.visualize.architecture import EDGE
from keras_fcn.visualize.maps import FEATURES, SCORES

WIDTH = 7.2  # inches
COLORS = 96  # of a file: few, for small files
WEIGHTS = "unet_camvid"
VGG16_DENSE = {"fc1": (25088, 4096), "fc2": (4096, 4096), "predictions": (4096, 1000)}
# Rows: maps of S2. Columns: maps of C3. LeCun et al. 1998, table I.
CONNECTION_TABLE = """
    X...XXX..XXXX.XX
    XX...XXX..XXXX.X
    XXX...XXX..X.XXX
    .XXX..XXXX..X.XX
    ..XXX..XXXX.XX.X
    ...XXX..XXXX.XXX
"""


def make_figure(height, columns=1, **settings):
    figure = load_matplotlib().figure.Figure((WIDTH, height), dpi=100, layout="constrained")
    return figure, np.ravel(figure.subplots(1, columns, **settings))


def load_photograph(width):
    photograph = Image.fromarray(load_sample_image("china.jpg"))  # 640x427
    return np.asarray(photograph.resize((width, round(width * 427 / 640))))


def show(axes, pixels, title, label=""):
    axes.imshow(pixels, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(label, fontsize=8)
    axes.set_title(title, fontsize=9)


def draw_grid(axes, rows, columns, title, color=FEATURES, corner=(0, 0)):
    """Draw a map of rows x columns pixels, with its top left corner at (x, y)."""
    for row in range(rows):
        for column in range(columns):
            place = (corner[0] + column, corner[1] + row)
            axes.add_patch(load_matplotlib().patches.Rectangle(place, 1, 1, fc=color, ec=EDGE))
    axes.text(corner[0] + columns / 2, corner[1] + rows + 0.3, title, ha="center", va="top", size=8)


def draw_arrow(axes, start, stop, text):
    arrow = {"arrowstyle": "->", "color": EDGE}
    axes.annotate("", (stop, 2.5), (start, 2.5), arrowprops=arrow)
    axes.text((start + stop) / 2, 2.2, text, ha="center", size=8)


def fully_convolutional_network():
    """One network, images of three sizes, maps of the same three sizes."""
    model = keras_fcn.from_pretrained(WEIGHTS)
    palette = np.array(keras_fcn.pretrained()[WEIGHTS]["palette"], "uint8")
    photograph = load_photograph(480)
    crops = [photograph, photograph[:200, 150:400], photograph[101:, 180:360]]
    figure, axes = make_figure(1.5, 6, width_ratios=[crop.shape[1] for crop in crops for _ in "12"])
    for place, crop in enumerate(crops):
        labels = keras_fcn.predict_image(model, crop).argmax(-1)
        height, width = labels.shape
        show(axes[2 * place], crop, "image", f"{height}x{width}x3")
        show(axes[2 * place + 1], palette[labels], "classes", f"{height}x{width}")
    return figure


def parameter_rich():
    """VGG16's parameters, layer by layer."""
    parameters, channels = {}, 3
    for number, block in enumerate(BLOCKS, start=1):
        for place, filters in enumerate(block.values(), start=1):
            parameters[f"block{number}_conv{place}"] = (3 * 3 * channels + 1) * filters
            channels = filters
    dense = {name: (inputs + 1) * units for name, (inputs, units) in VGG16_DENSE.items()}
    total = sum(parameters.values()) + sum(dense.values())
    figure, [axes] = make_figure(3)
    for group, color in ((parameters, FEATURES), (dense, SCORES)):
        bars = axes.barh(list(group), list(group.values()), color=color, edgecolor=EDGE)
        axes.bar_label(bars, [f" {count:,}" for count in group.values()], fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set(xlim=(0, 1.2 * max(dense.values())), xticks=[])
    axes.set_title(
        f"VGG16: {total:,} parameters, {sum(dense.values()) / total:.1%} in the dense layers",
        fontsize=9,
    )
    return figure


def one_by_one():
    """A 1x1 convolution mixes the channels of each pixel, and looks at no other."""
    photograph = load_photograph(210)
    mixes = {
        "gray = 0.30 R + 0.59 G + 0.11 B": [[0.30] * 3, [0.59] * 3, [0.11] * 3],
        "(G, B, R): the channels turned": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    }
    figure, axes = make_figure(2.0, 3)
    show(axes[0], photograph, "image", "3 channels")
    for place, (title, mix) in zip(axes[1:], mixes.items(), strict=True):
        kernel = np.array(mix, "float32")[None, None]  # (1, 1, 3, 3)
        mixed = keras.ops.conv(photograph[None].astype("float32"), kernel)[0]
        show(place, np.asarray(mixed).round().clip(0, 255).astype("uint8"), title, "1x1x3 kernels")
    return figure


def dense_is_convolution():
    """A dense layer on 3x3 pixels is one place of a 3x3 convolution; 1x1 is another layer."""
    cases = [  # title, side of the map, of the kernel
        ("a dense layer on 3x3 pixels:\n9 weights a channel, 1 result", 3, 3),
        ("a 3x3 convolution on 5x5 pixels:\nthe same 9 weights, 9 results", 5, 3),
        ("a 1x1 convolution on 3x3 pixels:\n1 weight a channel, 9 results", 3, 1),
    ]
    figure, axes = make_figure(1.9, 3)
    for place, (title, side, kernel) in zip(axes, cases, strict=True):
        results = side - kernel + 1
        draw_grid(place, side, side, f"map, {side}x{side}")
        draw_grid(place, kernel, kernel, "", SCORES)
        draw_arrow(place, 5.4, 7.6, f"{kernel}x{kernel}")
        corner = (8, (5 - results) / 2 if results == 1 else 0)
        draw_grid(place, results, results, f"{results}x{results}", SCORES, corner)
        place.set(xlim=(-0.3, 11.5), ylim=(6.2, -0.3), aspect="equal")
        place.set_title(title, fontsize=8)
        place.axis("off")
    return figure


def connection_table():
    """Which maps of S2 each map of C3 sees in LeNet-5, and a full connection table."""
    table = np.array([[mark == "X" for mark in row] for row in CONNECTION_TABLE.split()])
    figure, axes = make_figure(2.3, 2)
    for place, connected, name in zip(
        axes, (table, np.ones_like(table)), ("LeNet-5's C3", "full"), strict=True
    ):
        kernels = int(connected.sum())
        colors = load_matplotlib().colors.ListedColormap(["white", EDGE])
        place.pcolormesh(connected, cmap=colors, vmin=0, vmax=1, edgecolors="#bbbbbb")
        place.invert_yaxis()
        place.set(xticks=np.arange(16) + 0.5, yticks=np.arange(6) + 0.5, aspect="equal")
        place.set(xticklabels=range(16), yticklabels=range(6), xlabel="map of C3")
        place.tick_params(length=0, labelsize=7)
        weights = 25 * kernels + 16
        title = f"{name}: {kernels} kernels of 5x5, {weights:,} parameters"
        place.set_title(title, fontsize=8)
    axes[0].set_ylabel("map of S2")
    return figure


def xception():
    """The maps of Xception on its own image size and on a photograph, once it slides."""
    classifier = keras.applications.Xception(weights=None)
    model = keras_fcn.fully_convolutional(classifier)
    features = keras.Model(model.input, model.get_layer("block14_sepconv2_act").output)
    figure, axes = make_figure(2.2, 2, width_ratios=(1, 1.6))
    for place, size in zip(axes, ((299, 299), (427, 640)), strict=True):
        (_, rows, columns, _), (_, *results, _) = (
            network.compute_output_shape((1, *size, 3)) for network in (features, model)
        )
        draw_grid(place, rows, columns, f"{rows}x{columns}x2048")
        draw_grid(place, 10, 10, "", SCORES)
        corner = (columns + 4, 0)
        arrow = {"arrowstyle": "->", "color": EDGE}
        place.annotate("", (columns + 3.7, 1), (columns + 0.3, 1), arrowprops=arrow)
        title = f"{results[0]}x{results[1]}x1000"
        draw_grid(place, *results, title, SCORES, corner)
        place.set(xlim=(-0.5, corner[0] + results[1] + 2), ylim=(rows + 2, -0.5), aspect="equal")
        place.set_title(f"image of {size[0]}x{size[1]}", fontsize=9)
        place.axis("off")
    return figure


def unet_388():
    """The side of U-Net's maps, from the image of 572 to the output of 388."""
    model = keras_fcn.UNet(input_shape=(None, None, 1), padding="valid")
    names = [
        layer.name
        for layer in model.layers
        if isinstance(
            layer,
            keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.MaxPooling2D,
        )
    ]
    maps = keras.Model(model.input, [model.get_layer(name).output for name in names])
    sides = [shape[1] for shape in maps.compute_output_shape((1, 572, 572, 1))]
    figure, [axes] = make_figure(3.2)
    axes.step(range(len(names) + 1), [572, *sides], where="mid", color=EDGE)
    for place, side in enumerate([572, *sides]):
        axes.text(place, side + 12, side, ha="center", size=7)
    axes.set(ylabel="side of the map, pixels", ylim=(0, 630))
    axes.set_xticks(range(len(names) + 1), ["image", *names], rotation=90, fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    return figure


FIGURES = (
    fully_convolutional_network,
    parameter_rich,
    one_by_one,
    dense_is_convolution,
    connection_table,
    xception,
    unet_388,
)


def to_picture(figure):
    """Return a Matplotlib figure as a picture of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "docs" / "figures"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for draw in FIGURES:
        path = output / f"{draw.__name__}.png"
        write_png(path, to_picture(draw()))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
