"""The colours of classes."""

import numpy as np

VOID_COLOR = (208, 208, 208)  # a gray that no palette has


def voc_palette(num_classes):
    """Return the PASCAL VOC colours.

    Args:
        num_classes: number of classes, at most 256.

    Returns:
        uint8 array `(num_classes, 3)`, RGB; the first is black.

    Source: the VOC development kit, `VOClabelcolormap`: the bits of the class
    number, lowest first, are the highest bits of red, green and blue in turn.

    Example:

    >>> voc_palette(3).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    classes = np.arange(num_classes)[:, None]
    channels = np.arange(3)
    return sum(((classes >> (3 * bit + channels)) & 1) << (7 - bit) for bit in range(8)).astype(
        "uint8"
    )


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
