import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import keras_fcn
from keras_fcn.visualize.architecture import COLORS, DOUBLING, LARGEST, draw_architecture

FILTERS = (4, 8, 16, 32, 64)  # a sixteenth of the paper's
# figure 1 of the U-Net paper, down from the image, then up to the output
PAPER = [
    572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28,
    56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388,
]  # fmt: skip
CHANNELS = [
    1, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64,
    64, 32, 32, 32, 16, 16, 16, 8, 8, 8, 4, 4, 2,
]  # fmt: skip
# the authors' FCN-8s on 500x500: the trunk, then the terms of each sum and the sum
FCN8S = [
    500, 698, 698, 698, 349, 349, 349, 175, 175, 175, 175, 88, 88, 88, 88, 44, 44, 44, 44, 22,
    16, 16, 16, 34, 34, 34, 70, 70, 70, 568, 500,
]  # fmt: skip


def split_texts(figure):
    """Return the labels of the channels, those of the sizes, and the legend."""
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    texts = [text for text in texts if text not in ("+", "=")]
    count = 1 + max(i for i, text in enumerate(texts) if text.startswith("output")) + 1
    return texts[:count:2], texts[1:count:2], texts[count:]


def draw_paper():
    unet = keras_fcn.UNet(input_shape=(None, None, 1), padding="valid", filters=FILTERS)
    return draw_architecture(unet, (572, 572, 1))


def find_boxes(figure):
    """Return left, bottom, right and top of every box, in points."""
    corners = [patch.get_xy() for patch in figure.axes[0].patches]
    return np.array([[*box.min(axis=0), *box.max(axis=0)] for box in corners])


def find_arrows(figure, color):
    """Return (x, y) of the start and the end of every arrow of a colour."""
    arrows = [text for text in figure.axes[0].texts if not text.get_text()]
    return [
        (arrow.xyann, arrow.xy)
        for arrow in arrows
        if to_hex(arrow.arrow_patch.get_edgecolor()) == color
    ]


def test_unet_has_the_numbers_of_the_paper():
    figure = draw_paper()
    assert isinstance(figure, Figure)
    channels, sizes, legend = split_texts(figure)
    assert sizes == [f"{size}²" for size in PAPER]
    assert [int(label.split()[-1]) for label in channels] == CHANNELS
    assert legend == [
        "3x3 convolution, ReLU", "2x2 max pooling", "2x2 transposed convolution, stride 2",
        "copy and crop", "1x1 convolution, softmax",
    ]  # fmt: skip


def test_boxes_are_to_scale():
    left, bottom, right, top = find_boxes(draw_paper())[:15].T  # the contracting path
    np.testing.assert_allclose(top - bottom, LARGEST * np.array(PAPER[:15]) / 572)
    np.testing.assert_allclose(right - left, DOUBLING * np.log2(1 + np.array(CHANNELS[:15])))


def test_the_u_is_a_u():
    """Levels go down on the left and up on the right, where each copy arrives at its height."""
    figure = draw_paper()
    boxes = find_boxes(figure)
    heights = boxes[:, [1, 3]].mean(axis=1).round(6)
    down = [heights[i] for i in (0, 3, 6, 9, 12)]
    assert down == sorted(down, reverse=True)
    # on the way up, of each level: the upsampled map, the copy, two convolutions
    up = [heights[i] for i in (12, 15, 19, 23, 27)]
    assert up == down[::-1]
    *copies, _ = find_arrows(figure, COLORS["skip"][0])  # the last is the legend's
    assert len(copies) == 4
    for (start, end), source, copy in zip(copies, (11, 8, 5, 2), (16, 20, 24, 28), strict=True):
        assert start == pytest.approx((boxes[source, 2], heights[source]))
        assert end == pytest.approx((boxes[copy, 0], heights[copy]))


def test_fcn_has_the_numbers_of_the_authors_network(narrow_vgg16):
    model = keras_fcn.FCN8s(padding="valid", fc_filters=6)
    figure = draw_architecture(model, (500, 500, 3))
    channels, sizes, legend = split_texts(figure)
    assert sorted(sizes) == sorted(f"{size}²" for size in FCN8S)
    names = [label.split()[0] for label in channels if "\n" in label]
    assert names == [
        "image", "pad", "pool1", "pool2", "pool3", "pool4", "pool5", "fc6", "fc7", "score_fr",
        "score_pool4", "upscore2", "fuse_pool4", "score_pool3", "upscore_pool4", "fuse_pool3",
        "upscore8", "output",
    ]  # fmt: skip
    assert "fc6\n6" in channels
    assert "skip: 1x1 convolution, crop" in legend
    assert len(find_arrows(figure, COLORS["skip"][0])) == 3  # with the legend's


@pytest.mark.parametrize(("factory", "skips"), [("FCN32s", 0), ("FCN16s", 1), ("FCN8s", 2)])
def test_fcns_add_the_skips_they_have(factory, skips, narrow_vgg16):
    model = getattr(keras_fcn, factory)(fc_filters=6, num_classes=5)
    figure = draw_architecture(model, (64, 64, 3))
    signs = [text.get_text() for text in figure.axes[0].texts]
    assert signs.count("+") == signs.count("=") == skips
    channels, sizes, legend = split_texts(figure)
    assert (channels[-1], sizes[-1]) == ("output\n5", "64²")
    assert not any("crop" in text for text in legend)  # 64 is a multiple of 32


def test_at_once_skips_are_scaled(narrow_vgg16):
    figure = draw_architecture(keras_fcn.FCN8sAtOnce(fc_filters=6), (64, 64, 3))
    legend = split_texts(figure)[2]
    assert "skip: scaling by 0.01, 1x1 convolution" in legend
    assert "skip: scaling by 0.0001, 1x1 convolution" in legend


UNETS = [
    ({}, (37, 50, 3)),
    ({"padding": "valid"}, (92, 100, 3)),
    ({"batch_norm": True, "classifier_activation": None}, (32, 32, 3)),
    ({"filters": (2, 3)}, (1, 1, 3)),
    ({"filters": (2, 3, 4, 5, 6, 7, 8), "input_shape": (None, None, 1)}, (300, 200, 1)),
    ({"encoder": "vgg16", "filters": (2, 3, 4, 5, 6), "batch_norm": True}, (48, 65, 3)),
    ({"input_shape": (40, 40, 2)}, (40, 40, 2)),
]


@pytest.mark.parametrize(("arguments", "shape"), UNETS)
def test_labels_are_the_shapes_of_what_the_model_computes(arguments, shape, narrow_vgg16):
    model = keras_fcn.UNet(**{"filters": (2, 3, 4), "num_classes": 3, **arguments})
    outputs = [
        layer.output
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Concatenate))
        or layer.name.startswith("pool")
    ]
    computed = keras.Model(model.input, outputs)(np.zeros((1, *shape), "float32"))
    expected = [shape, *(tuple(output.shape[1:]) for output in computed)]
    channels, sizes, _ = split_texts(draw_architecture(model, shape))
    drawn = [
        (*map(int, (size.split("x") if "x" in size else [size[:-1]] * 2)), int(label.split()[-1]))
        for label, size in zip(channels, sizes, strict=True)
    ]
    assert drawn == expected


def check_texts(figure):
    """No label leaves the figure or touches another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text() not in ("", "+", "=")]
    extents = [text.get_window_extent(renderer) for text in texts]
    for number, extent in enumerate(extents):
        assert figure.bbox.containsx(extent.x0) and figure.bbox.containsx(extent.x1)
        assert figure.bbox.containsy(extent.y0) and figure.bbox.containsy(extent.y1)
        touching = [i for i in range(number) if extent.overlaps(extents[i])]
        assert not touching, (texts[number], [texts[i] for i in touching])


@pytest.mark.parametrize(
    ("factory", "arguments", "shape"),
    [
        ("UNet", {"filters": FILTERS, "padding": "valid"}, (572, 572, 3)),
        ("UNet", {"filters": (2, 3)}, (20, 3000, 3)),
        ("UNet", {"filters": (1, 1, 1), "num_classes": 1000}, (1024, 2048, 3)),
        ("FCN8s", {"fc_filters": 6, "padding": "valid"}, (375, 500, 3)),
        ("FCN8sAtOnce", {"fc_filters": 6, "num_classes": 100}, (33, 33, 3)),
        ("FCN32s", {"fc_filters": 6}, (512, 512, 3)),
    ],
)
def test_texts_have_their_place(factory, arguments, shape, narrow_vgg16):
    model = getattr(keras_fcn, factory)(**arguments)
    check_texts(draw_architecture(model, shape))


def test_loaded_model_is_drawn_alike(tmp_path, narrow_vgg16):
    model = keras_fcn.FCN8s(fc_filters=6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    drawings = [split_texts(draw_architecture(m, (50, 60, 3))) for m in (model, loaded, model)]
    assert drawings[0] == drawings[1] == drawings[2]


def test_what_cannot_be_drawn_is_refused():
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(ValueError, match=r"UNet, FCN32s, .* Received: <Sequential"):
        draw_architecture(other, (8, 8, 3))
    unet = keras_fcn.UNet(filters=(2, 3), padding="valid")
    for shape in [(None, None, 3), (64, 64, 1)]:
        with pytest.raises(ValueError, match=r"\(None, None, 3\). Received: input_shape"):
            draw_architecture(unet, shape)
    with pytest.raises(ValueError, match=r"`input_shape` should be \(height, width, channels\)"):
        draw_architecture(unet, (64, 64))
    with pytest.raises(ValueError, match="be 18 pixels high"):
        draw_architecture(unet, (8, 8, 3))
