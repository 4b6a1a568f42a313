"""Answers as HTML, with their pictures inside: nothing is left on disk to be fetched later."""

import html
from pathlib import Path

import numpy as np
from PIL import Image

from keras_fcn.page.pictures import PNG, data_url


def error(message):
    """Return a message that explains what went wrong."""
    return f'<div class="kf-error" role="alert">{html.escape(str(message))}</div>'


def preview(name, image, remarks=()):
    """Return a small view of the picture that will be used, with remarks on it."""
    height, width = image.shape[:2]
    notes = "".join(f'<p class="kf-remark">{html.escape(remark)}</p>' for remark in remarks)
    small = Image.fromarray(image)
    small.thumbnail((600, 440))
    return (
        f'<div class="kf-preview"><img alt="the picture" src="{data_url(small)}">'
        f"{html.escape(name)}, {width} x {height} pixels{notes}</div>"
    )


def answers_page(answers):
    """Return one model's answer, or two with a divider between them.

    Args:
        answers: list of one or two `Answer` of one picture.
    """
    label_maps = [label_map_url(answer) for answer in answers]
    sides = ("kf-first", "kf-second") if len(answers) == 2 else ("",)
    layers = "".join(
        f'<img class="kf-labels {side}" alt="classes of {html.escape(answer.model)}" src="{url}">'
        for answer, side, url in zip(answers, sides, label_maps, strict=True)
    )
    divider = ""
    if len(answers) == 2:
        divider = (
            '<span class="kf-divider"></span><input class="kf-cut" type="range" value="50" '
            'aria-label="where the one model ends and the other begins">'
        )
    columns = "".join(
        _column(answer, side, url)
        for answer, side, url in zip(answers, sides, label_maps, strict=True)
    )
    return (
        f'<div class="kf-answer"><div class="kf-stack"><img class="kf-photo" alt="the picture" '
        f'src="{data_url(answers[0].image)}">{layers}{divider}</div>{_opacity_slider()}'
        f'<div class="kf-columns">{columns}</div></div>'
    )


def label_map_url(answer):
    """Return the label map as a palette PNG, whose pixel values are the classes."""
    picture = Image.fromarray(answer.label_map.astype("uint8"), mode="P")
    picture.putpalette(np.asarray(answer.classes.colors, "uint8").tobytes())
    return data_url(picture, PNG)


def _opacity_slider():
    return (
        '<label class="kf-slider">Opacity <input class="kf-opacity" type="range" value="50">'
        "</label>"
    )


def _column(answer, side, label_map):
    """Return one model's name, time, legend with areas, downloads and certainty."""
    where = {"": "", "kf-first": "left: ", "kf-second": "right: "}[side]
    height, width = answer.label_map.shape
    stem = html.escape(f"{Path(answer.model).stem}")
    legend = _legend_strip(answer)
    layer = f".kf-labels.{side}" if side else ".kf-labels"
    return (
        f"<section><h3>{where}{html.escape(answer.model)}</h3>"
        f"<p>{width} x {height} pixels in {answer.seconds:.2f} s</p>{_legend(answer)}"
        f'<p class="kf-downloads"><a download="{stem}_labels.png" href="{label_map}">label map</a>'
        f'<a class="kf-overlay" data-labels="{layer}" download="{stem}_overlay.png" '
        f'href="#">overlay<img hidden alt="" src="{legend}"></a></p>{_certainty(answer)}</section>'
    )


def _legend(answer):
    """Return the classes that occur, with their colours and areas."""
    rows = []
    for label, pixels in answer.areas:
        red, green, blue = answer.classes.colors[label]
        share = pixels / answer.label_map.size
        rows.append(
            f'<li><span class="kf-swatch" style="background:rgb({red},{green},{blue})"></span>'
            f'<span>{html.escape(answer.classes.names[label])}</span><span class="kf-number">'
            f'{share:.1%}</span><span class="kf-number">{pixels:,} px</span></li>'
        )
    return f'<ul class="kf-legend">{"".join(rows)}</ul>'


def _legend_strip(answer):
    """Return the legend that stands below a downloaded overlay."""
    picture = answer.overlay()
    strip = picture.crop((0, answer.image.shape[0], picture.width, picture.height))
    return data_url(strip, PNG)


def _certainty(answer):
    if answer.certainty is None:
        return "<p>The model's scores are no probabilities, so there is no map of certainty.</p>"
    return (
        f'<img class="kf-certainty" alt="map of certainty" src="{data_url(answer.certainty)}">'
        "<p>Certainty: black where the model is certain, yellow where all classes are equally "
        "probable.</p>"
    )


def kernels(pair, scores, seconds):
    """Return the table of a classifier's dense kernels beside its convolutions.

    Args:
        pair: `Pair`.
        scores: float array `(rows, columns, classes)` of all windows of a picture.
        seconds: the time they took.
    """
    rows, columns = scores.shape[:2]
    comparison = pair.comparison
    table = "".join(
        f"<tr{' class=kf-dense' if row.dense_kernel else ''}><td>{html.escape(row.name)}</td>"
        f"<td>{_shape(row.dense_kernel)}</td><td>{_shape(row.conv_kernel)}</td>"
        f"<td>{row.parameters:,}</td><td>{row.parameters / comparison.parameters:.1%}</td></tr>"
        for row in comparison.rows
    )
    dense = sum(row.parameters for row in comparison.rows if row.dense_kernel)
    return (
        '<div class="kf-scroll"><table class="kf-table"><thead><tr><th>layer</th>'
        "<th>dense kernel</th><th>convolution kernel</th><th>parameters</th><th>share</th></tr>"
        f"</thead><tbody>{table}</tbody></table></div><p>The dense layers have {dense:,} of "
        f"{comparison.parameters:,} parameters, {dense / comparison.parameters:.1%}. As "
        "convolutions they have the same ones, in another shape. Largest difference of the "
        f"outputs: {comparison.largest_difference:.1e}, where the largest output is "
        f"{comparison.largest_output:.1e}.</p><p>{rows * columns:,} windows of "
        f"{pair.window[0]} x {pair.window[1]} pixels, {pair.stride[0]} apart, at once in "
        f"{seconds:.2f} s.</p>"
    )


def _shape(kernel):
    return " x ".join(map(str, kernel)) if kernel else ""


def stage(pair, image, grid):
    """Return the picture with a window to drag over it.

    Args:
        pair: `Pair`.
        image: uint8 array `(height, width, 3)`.
        grid: `(rows, columns)` of windows.
    """
    height, width = image.shape[:2]
    (tall, wide), (down, right) = pair.window, pair.stride
    return (
        f'<div class="kf-stack kf-stage" data-rows="{grid[0]}" data-columns="{grid[1]}" '
        f'data-down="{down / height}" data-right="{right / width}" '
        f'data-tall="{tall / height}" data-wide="{wide / width}">'
        f'<img class="kf-photo" alt="the picture" draggable="false" src="{data_url(image)}">'
        f'<div class="kf-window" style="left:0;top:0;width:{wide / width:.4%};'
        f'height:{tall / height:.4%}"></div></div>'
    )


def heat(pair, image, heat_map, name):
    """Return the picture with the heat map of a class, each score at its window's centre."""
    height, width = image.shape[:2]
    (tall, wide), (down, right) = pair.window, pair.stride
    style = (
        f"left:{(wide - right) / 2 / width:.4%};top:{(tall - down) / 2 / height:.4%};"
        f"width:{heat_map.width * right / width:.4%};height:{heat_map.height * down / height:.4%}"
    )
    return (
        '<div class="kf-answer"><div class="kf-stack"><img class="kf-photo" alt="the picture" '
        f'src="{data_url(image)}"><img class="kf-labels kf-heat" style="{style}" '
        f'alt="heat map of {html.escape(name)}" src="{data_url(heat_map, PNG)}"></div>'
        f"{_opacity_slider()}<p>How probable {html.escape(name)} is in each of "
        f"{heat_map.height} x {heat_map.width} windows: violet 0, yellow 1.</p></div>"
    )


def window_table(pair, scores, count=5):
    """Return one window's most probable classes, by dense layers and by convolutions."""
    best = np.argsort(-scores.dense, kind="stable")[:count]
    rows = "".join(
        f"<tr><td>{html.escape(pair.names[label])}</td><td>{scores.dense[label]:.6f}</td>"
        f"<td>{scores.convolution[label]:.6f}</td><td>{scores.sliding[label]:.6f}</td></tr>"
        for label in best
    )
    alone = abs(scores.dense - scores.convolution).max()
    there = abs(scores.dense - scores.sliding).max()
    padding = (
        " The network pads: a window alone is bordered by zeros, in the picture by its "
        "surroundings, so these differ."
        if pair.pads
        else ""
    )
    return (
        '<div class="kf-scroll"><table class="kf-table"><thead><tr><th>this window</th>'
        "<th>dense layers</th><th>convolution</th><th>sliding</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p>Largest difference from the dense layers: "
        f"{alone:.1e} by convolution on the window, {there:.1e} sliding.{padding}</p>"
    )
