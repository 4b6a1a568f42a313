"""Which way up an image is, by the EXIF tag that TIFF has, too (CIPA DC-008, Orientation)."""

EXIF_ORIENTATION = 0x0112
INVERSE = {6: 8, 8: 6}  # orientations that do not undo themselves


def as_mask(pixels, orientation, mask_shape):
    """Return pixels `(height, width, ...)` upright, unless the mask is as they are stored."""
    stored = pixels.shape[:2]
    upright = stored[::-1] if orientation > 4 else stored  # 5 to 8 swap width and height
    as_stored = stored == mask_shape and upright != mask_shape
    return pixels if as_stored else turned(pixels, orientation)


def turned(pixels, orientation):
    """Return the pixels `(height, width, ...)` turned as an EXIF orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
