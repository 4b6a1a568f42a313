"""An image in tiles: predicted piece by piece."""

import numpy as np

# Tiles begin at multiples of the coarsest stride of our networks, so that pooling cells agree.
TILE_STEP = 32


def check_tile_size(tile_size):
    if tile_size < 4 * TILE_STEP or tile_size % TILE_STEP:
        raise ValueError(
            f"`tile_size` should be a multiple of {TILE_STEP} from {4 * TILE_STEP} up. "
            f"Received: tile_size={tile_size}. 512 is a good start; larger is faster."
        )


def predict_tiled(predict, image, tile_size, num_classes):
    """Predict an image (H, W, C) in tiles by `predict`, a function of one tile."""
    scores = np.empty((*image.shape[:2], num_classes), "float32")
    for top, bottom, rows in _tiles(image.shape[0], tile_size):
        for left, right, columns in _tiles(image.shape[1], tile_size):
            tile = predict(image[top:bottom, left:right])
            scores[rows, columns] = tile[
                rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
    return scores


def _tiles(size, tile_size):
    """Yield where each tile of a side begins and ends, and the slice to keep of it."""
    margin = tile_size // 4 // TILE_STEP * TILE_STEP
    start = stop = 0
    while stop < size:
        stop = min(start + tile_size, size)
        keep = slice(start + margin if start else 0, stop - margin if stop < size else size)
        yield start, stop, keep
        start += tile_size - 2 * margin
