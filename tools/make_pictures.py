"""Make the pictures of the README again.

    python tools/make_pictures.py

Writes them into docs/: the photograph that comes with scikit-learn, segmented by
`unet_vgg16_camvid`; the U-Net paper's network on its image of 572x572; FCN-8s on an image of
500x500. It needs scikit-learn and Matplotlib, and downloads nothing.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import keras_fcn
from keras_fcn.visualize import overlay, write_png
from keras_fcn.visualize.architecture import draw_architecture

WEIGHTS = "unet_vgg16_camvid"
SIZE = (480, 320)  # as wide as CamVid's images, and 250 kB as PNG

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent.parent / "docs")
output = parser.parse_args().output
output.mkdir(parents=True, exist_ok=True)


def write(name, picture):
    path = output / name
    write_png(path, picture)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


photograph = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(SIZE))
card = keras_fcn.pretrained()[WEIGHTS]
model = keras_fcn.from_pretrained(WEIGHTS)
label_map = keras_fcn.predict_image(model, photograph).argmax(-1)
write("china_overlay.png", overlay(photograph, label_map, card["palette"], card["classes"]))

unet = keras_fcn.UNet(input_shape=(None, None, 1), padding="valid")
write("unet.png", draw_architecture(unet, (572, 572, 1)))

fcn8s = keras_fcn.FCN8s()
write("fcn8s.png", draw_architecture(fcn8s, (500, 500, 3)))
