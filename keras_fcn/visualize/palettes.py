"""The colours of classes."""

import numpy as np

from keras_fcn.classes import voc_palette

VOID_COLOR = (208, 208, 208)
"""The colour of void pixels, a gray that no palette has."""

PALETTES = {
    "voc_segmentation": voc_palette(21),
    "camvid": np.array(
        [
            (128, 128, 128),  # sky
            (128, 0, 0),  # building
            (192, 192, 128),  # pole
            (128, 64, 128),  # road
            (60, 40, 222),  # pavement
            (128, 128, 0),  # tree
            (192, 128, 128),  # sign
            (64, 64, 128),  # fence
            (64, 0, 128),  # car
            (64, 64, 0),  # pedestrian
            (0, 128, 192),  # bicyclist
        ],
        "uint8",
    ),
    "cityscapes": np.array(
        [
            (128, 64, 128),  # road
            (244, 35, 232),  # sidewalk
            (70, 70, 70),  # building
            (102, 102, 156),  # wall
            (190, 153, 153),  # fence
            (153, 153, 153),  # pole
            (250, 170, 30),  # traffic light
            (220, 220, 0),  # traffic sign
            (107, 142, 35),  # vegetation
            (152, 251, 152),  # terrain
            (70, 130, 180),  # sky
            (220, 20, 60),  # person
            (255, 0, 0),  # rider
            (0, 0, 142),  # car
            (0, 0, 70),  # truck
            (0, 60, 100),  # bus
            (0, 80, 100),  # train
            (0, 0, 230),  # motorcycle
            (119, 11, 32),  # bicycle
        ],
        "uint8",
    ),
}
"""Colours of the classes of data sets, dict of name and uint8 array `(classes, 3)`, RGB."""
