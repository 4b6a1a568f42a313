"""Packages of the BioImage Model Zoo, for ImageJ, QuPath, ilastik and napari."""

import dataclasses
import re
import shutil
import zipfile

import keras
import numpy as np

from keras_fcn.atomic import temporary_folder, write_json
from keras_fcn.cards import pretrained
from keras_fcn.exports.formats import open_onnx, write_onnx
from keras_fcn.inference.images import leaves, takes_bytes
from keras_fcn.label_maps import to_labels
from keras_fcn.layers import SizeCheck
from keras_fcn.receptive_fields import receptive_field
from keras_fcn.visualize import overlay, write_png
from keras_fcn.weights import fingerprint

SIDE = 64  # pixels: the test image has at least this height and width
TOLERANCE = 1e-3  # of the zoo's test
PAPERS = {
    "upconv": ("Ronneberger, Fischer and Brox: U-Net, 2015", "10.1007/978-3-319-24574-4_28"),
    "upscore": (
        "Long, Shelhamer and Darrell: Fully Convolutional Networks, 2015",
        "10.1109/CVPR.2015.7298965",
    ),
}
AXES = ("y", "x")


def write_bioimageio(model, path, classes):
    """Write the package, and let the zoo's own tests run it."""
    from bioimageio.spec import ValidationContext, save_bioimageio_package

    with temporary_folder(elsewhere=True) as parts:
        size = Size.of(model)
        _write_parts(model, size, parts, classes)
        with ValidationContext(root=parts):
            description = _describe(model, size, classes)
            save_bioimageio_package(description, output_path=path)
    _test(path)


def open_bioimageio(path):
    """Open the ONNX file in the package."""
    with zipfile.ZipFile(path) as package:
        return open_onnx(package.read("model.onnx"))


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of images and maps, in pixels; alike for height and width."""

    minimum: int  # images of the size `minimum + k * step` fit
    step: int
    stride: int  # pixels of the image from one of the map to the next
    offset: int  # the map has `size / stride + offset` pixels
    halo: int  # pixels of the map at each border that depend on what is beyond

    @classmethod
    def of(cls, model):
        """Measure them."""
        try:
            field = receptive_field(model)
        except ValueError as error:
            raise ValueError(
                "The zoo asks how much of the image each pixel of a map depends on. Received: "
                f"{model.name!r}, of which that is not known. {error} Or export to another format."
            ) from error
        stride, step = max(field.stride), int(max(field.alignment))
        if stride.denominator != 1 or step % stride:
            raise ValueError(
                "The zoo knows maps whose pixels are a whole number of the image's apart. "
                f"Received: {model.name!r} with {stride} pixels. Export it to another format."
            )
        check = next((layer for layer in leaves(model) if isinstance(layer, SizeCheck)), None)
        minimum, step = (check.minimum, check.step) if check else (step, step)
        channels = model.input_shape[-1]

        def length(size):
            return model.compute_output_shape((1, size, size, channels))[1]

        reach = int(max(*field.before, *field.after))
        padded = length(minimum * 8) * stride == minimum * 8
        halo = -(-reach // step) * step if padded else 0
        while minimum < max(SIDE, 2 * halo + 1, 0 if padded else max(field.size)):
            minimum += step
        stride = int(stride)
        return cls(minimum, step, stride, length(minimum) - minimum // stride, halo // stride)


def _write_parts(model, size, folder, classes):
    """Write the weights in two formats, the test tensors, the cover and the card."""
    write_onnx(model, folder / "model.onnx", classes)
    _write_saved_model(model, folder / "saved_model")
    shutil.make_archive(str(folder / "saved_model"), "zip", folder / "saved_model")
    image = _test_image(size.minimum, model.input_shape[-1])
    scores = keras.ops.convert_to_numpy(model(image[None], training=False))
    np.save(folder / "test_input.npy", image[None])
    np.save(folder / "test_output.npy", scores)
    write_png(folder / "cover.png", _cover(image, to_labels(scores[0]), classes))
    (folder / "README.md").write_text(_readme(model, classes))
    write_json(folder / "classes.json", classes.to_config())


def _write_saved_model(model, folder):
    """Write a SavedModel whose function gives its output by name, as the zoo's reader asks."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda images: {"probabilities": model(images, training=False)},
        input_signature=[keras.InputSpec(shape=model.input_shape, dtype="float32")],
    )
    archive.write_out(str(folder), verbose=False)


def _test_image(side, channels):
    """Return a photograph, in gray or in as many channels as it takes: float32 in [0, 255]."""
    from skimage import data, transform

    photograph = transform.resize(data.astronaut(), (side, side), anti_aliasing=True) * 255
    image = photograph.mean(-1, keepdims=True) if channels == 1 else photograph
    return (
        np.resize(image.transpose(2, 0, 1), (channels, side, side))
        .transpose(1, 2, 0)
        .astype("float32")
    )


def _cover(image, label_map, classes):
    """Return the photograph under the colours of its classes, or the map alone."""
    image = np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]
    if label_map.shape != image.shape[:2]:
        image = np.full((*label_map.shape, 3), 255.0)
    return overlay(image.round().astype("uint8"), label_map, classes.palette, classes.names)


def _describe(model, size, classes):
    """Return the description, a `ModelDescr`."""
    from bioimageio.spec.model.v0_5 import ModelDescr

    papers = [paper for start, paper in PAPERS.items() if _has_layer(model, start)]
    return ModelDescr(
        name=f"keras_fcn {re.sub(r'[^A-Za-z0-9_.()-]', ' ', model.name)}",
        description=f"Segmentation of images into {len(classes)} classes, made with keras_fcn.",
        authors=[{"name": "keras_fcn"}],
        cite=[{"text": text, "doi": doi} for text, doi in papers],
        license="Apache-2.0" if _card(model) else None,
        covers=[{"source": "cover.png"}],
        documentation={"source": "README.md"},
        attachments=[{"source": "classes.json"}],
        tags=["semantic-segmentation", "keras"],
        inputs=[_input(size, model)],
        outputs=[_output(size, model.output_shape[-1], classes)],
        weights=_weights(),
        config={"bioimageio": {"reproducibility_tolerance": [_tolerance()]}},
    )


def _has_layer(model, start):
    return any(layer.name.startswith(start) for layer in model.layers)


def _input(size, model):
    channels, in_bytes = model.input_shape[-1], takes_bytes(model)
    names = {1: ["gray"], 3: ["red", "green", "blue"]}
    parameterized = {"min": size.minimum, "step": size.step}
    return {
        "id": "image",
        "description": _pixels(model),
        "axes": [
            {"type": "batch"},
            *({"type": "space", "id": axis, "size": parameterized} for axis in AXES),
            {
                "type": "channel",
                "channel_names": names.get(channels, [f"channel{i}" for i in range(channels)]),
            },
        ],
        "data": {"type": "float32", **({"range": [0, 255]} if in_bytes else {})},
        "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}],
        "test_tensor": {"source": "test_input.npy"},
    }


def _pixels(model):
    """Say which pixels a network takes."""
    if takes_bytes(model):
        return "It takes pixels in [0, 255] and scales them itself."
    return "It takes pixels scaled as those that it was trained on."


def _output(size, channels, classes):
    halo = {"halo": size.halo} if size.halo else {}
    space = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": "image", "axis_id": axis, "offset": size.offset},
            "scale": float(size.stride),
            **halo,
        }
        for axis in AXES
    ]
    names = _identifiers(classes.names if channels > 1 else classes.names[1:])
    return {
        "id": "probabilities",
        "description": "One map a class.",
        "axes": [{"type": "batch"}, *space, {"type": "channel", "channel_names": names}],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test_output.npy"},
    }


def _identifiers(names):
    """Return the names as the zoo wants them, which are in full in `classes.json`."""
    names = [re.sub(r"\W", "_", name) for name in names]
    names = [name if name.isidentifier() else f"class_{name}" for name in names]
    repeated = len(set(names)) < len(names)
    return [f"{name}_{i}" for i, name in enumerate(names)] if repeated else names


def _weights():
    import tensorflow as tf

    return {
        "onnx": {"source": "model.onnx", "opset_version": 15},
        "tensorflow_saved_model_bundle": {
            "source": "saved_model.zip",
            "tensorflow_version": tf.__version__,
            "parent": "onnx",
        },
    }


def _tolerance():
    return {"relative_tolerance": TOLERANCE, "absolute_tolerance": TOLERANCE}


def _card(model):
    """Return the card of the weights that ship with the package, if these are they."""
    card = pretrained().get(model.name)
    if card is None or model.output_shape[-1] != len(card["classes"]):
        return None
    return card if np.allclose(fingerprint(model), card["fingerprint"], atol=1e-3) else None


def _readme(model, classes):
    """Return the card as Markdown."""
    card = _card(model)
    lines = [
        f"# {model.name}",
        "",
        f"A network of {model.count_params():,} parameters that gives each pixel of an image one "
        f"of {len(classes)} classes. {_pixels(model)} Made with keras_fcn for Keras.",
        "",
        "| label | class | colour |",
        "|---|---|---|",
        *(
            f"| {label} | {name} | {color} |"
            for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        ),
        "",
        "## Training",
        "",
        f"Data: {classes.data or 'not recorded'}.",
    ]
    if card:
        scores = {key: value for key, value in card["metric"].items() if np.isscalar(value)}
        lines += [
            f"Licence of the data: {card['data_licence']}.",
            f"Command: `{card['commands'][-1]}`",
            "",
            "## Validation",
            "",
            *(f"- {name.replace('_', ' ')}: {value}" for name, value in scores.items()),
        ]
    lines += ["", "## Validation of results", "", "Look at the maps of your own images first."]
    return "\n".join(lines) + "\n"


def _test(path):
    """Run the zoo's tests of a package, or raise with what they found."""
    from bioimageio.core import test_description

    summary = test_description(path, weight_format="onnx")
    if summary.status != "passed":
        errors = "; ".join(error.msg for detail in summary.details for error in detail.errors)
        raise ValueError(
            f"The package should pass the tests of the BioImage Model Zoo. Received: {errors}. "
            "Nothing is written; export to another format."
        )
