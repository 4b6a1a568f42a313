# %% [markdown]
"""A dense layer is a convolution: shown on three numbers, on a pixel, on VGG16, on U-Net.

    python examples/dense_is_convolution.py

Reads downward, prints as it goes, and draws a heat map. It downloads nothing: VGG16 has random
weights, which change no number about shapes, parameters or speed, and mean nothing. With
`--weights imagenet` it takes the ImageNet weights that Keras downloads, with `--weights FILE` a
file of them, and the heat map becomes one of the class seen most. It needs scikit-learn for its
photograph.
"""

# %%
import argparse
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

import keras_fcn
from keras_fcn.visualize import write_png

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--weights", help="imagenet, or a file of VGG16's weights with its top")
parser.add_argument("--output", type=Path, default=Path("predictions/heat_map.png"))
options = parser.parse_args()
keras.utils.set_random_seed(0)


def title(text):
    print(f"\n{text}\n{'-' * len(text)}")


# %%
title("1. Three numbers")

W = np.array([[0, 1, 1], [2, 3, 5]])
b = np.array([8, 13])
x = np.array([1, 10, 100])
print("A dense layer with 2 units on 3 numbers, y = W x + b:")
print("  W =", W.tolist(), " b =", b.tolist(), " x =", x.tolist(), " y =", (W @ x + b).tolist())

# Keras keeps W transposed: one row for each input, one column for each unit.
kernel = W.T.astype("float32")  # (3, 2)


def convolve(image, kernel):
    """Convolve one image (height, width, channels) without padding, and add b."""
    return keras.ops.conv(image[None].astype("float32"), kernel, padding="valid")[0] + b


as_image = x.reshape(1, 3, 1)  # 1 row, 3 columns, 1 channel
conv_kernel = keras_fcn.dense_to_conv(kernel, kernel_size=(1, 3))  # (1, 3, 1, 2)
print(f"The same numbers as an image of 1x3 pixels, the same W as a kernel of {conv_kernel.shape}:")
print("  y =", np.asarray(convolve(as_image, conv_kernel)).tolist())

longer = np.array([1, 10, 100, 1000, 10000]).reshape(1, 5, 1)
print("The kernel is as large as the image, so it fits in one place. On 5 numbers it slides:")
print("  y =", np.asarray(convolve(longer, conv_kernel)).tolist())
print("That is the dense layer on (1, 10, 100), on (10, 100, 1000) and on (100, 1000, 10000).")

# %%
title("2. One pixel")

as_pixel = x.reshape(1, 1, 3)  # 1 row, 1 column, 3 channels
conv_kernel = keras_fcn.dense_to_conv(kernel, kernel_size=1)  # (1, 1, 3, 2)
print("Now the 3 numbers are the channels of one pixel. W becomes a 1x1 convolution,")
print(f"whose kernel is not one number but 1x1x channels for each unit, {conv_kernel.shape}:")
print("  y =", np.asarray(convolve(as_pixel, conv_kernel)).tolist())

photo_like = np.random.default_rng(0).integers(0, 9, (4, 5, 3))
pixel_by_pixel = photo_like @ W.T + b
same = np.array_equal(convolve(photo_like, conv_kernel), pixel_by_pixel)
print("On an image of 4x5 pixels it is that dense layer at every pixel on its own:", same)
print("So a dense layer is a 1x1 convolution only where the map is one pixel. On a map of")
print("h x w pixels it is an h x w convolution, and has h * w times as many weights.")

# %%
title("3. VGG16")

vgg16 = keras.applications.VGG16(weights=options.weights)
print(keras_fcn.compare(vgg16))
print("The dense layers are parameter-rich: fc1 has a weight for each of 7 * 7 * 512 inputs and")
print("each of 4096 units. As convolutions they have the same weights, no fewer; what changes is")
print("that they can slide.")

# %%
title("4. A larger photograph")

model = keras_fcn.fully_convolutional(vgg16)
photo = load_sample_image("china.jpg")  # (427, 640, 3)
pixels = keras.applications.vgg16.preprocess_input(photo.astype("float32"))
scores = keras_fcn.predict_image(model, pixels)  # (rows, columns, 1000)
rows, columns, classes = scores.shape
window, stride = model.window, model.stride
print(f"A photograph of {photo.shape[0]}x{photo.shape[1]} gives {rows}x{columns} predictions,")
print(f"one for each window of {window[0]}x{window[1]}, {stride[0]} pixels apart.")
field = keras_fcn.receptive_field(model)
print(f"Of a larger photograph each sees {field.size[0]}x{field.size[1]} pixels: the convolutions")
print("pad, and where the window ended in zeros there are now pixels. Layer by layer:")
print(field)

label = scores.mean(axis=(0, 1)).argmax()
heat = scores[..., label]
heat = (heat - heat.min()) / (np.ptp(heat) or 1)
# A prediction stands at the centre of its window: fill a stride's square around it.
height, width = rows * stride[0], columns * stride[1]
top, left = ((w - s) // 2 for w, s in zip(window, stride, strict=True))
heat = Image.fromarray((255 * heat).astype("uint8")).resize((width, height), Image.NEAREST)
picture = Image.fromarray(photo)
picture.paste(Image.new("RGB", heat.size, "red"), (left, top), heat.point(lambda v: v // 2))
ImageDraw.Draw(picture).rectangle((0, 0, window[1] - 1, window[0] - 1), outline="white", width=2)
options.output.parent.mkdir(parents=True, exist_ok=True)
write_png(options.output, picture)
print("Framed in white: the first window. Red, from the least to the most: how much its class of")
if options.weights:
    average = scores.mean(axis=(0, 1))[None]
    name = keras.applications.vgg16.decode_predictions(average, 1)[0][0][1]
    print(f"highest score, {name}, is seen: {options.output}")
else:
    print(f"highest score, number {label}, is seen: {options.output}. The weights are random, so")
    print("it shows where the predictions are, and nothing about the photograph.")

# %%
title("5. The last layer of U-Net")

unet = keras_fcn.UNet(num_classes=2)
score = unet.get_layer("score")
print(f"U-Net ends in a 1x1 convolution from 64 channels to 2 classes: {score.kernel.shape},")
print("two kernels of 1x1x64: at each pixel, one dense layer from its 64 features to 2 scores.")
features = np.random.default_rng(0).normal(size=(1, 6, 7, 64)).astype("float32")
dense = features.reshape(-1, 64) @ np.asarray(score.kernel).reshape(64, 2)
difference = abs(np.asarray(score(features)).reshape(-1, 2) - dense).max()
print(f"Largest difference between the two on 6x7 pixels: {difference:.0e}")
