"""Write images as PNG, for a look at them."""

from pathlib import Path

import numpy as np


def write_png(
    path: Path, magnitude: np.ndarray, window: tuple[float, float], history: str, *, transpose: bool = False
) -> None:
    """Write all slices and frames side by side, in gray from the lower to the upper end of a window.

    Args:
        path (Path): The file.
        magnitude (array): Image (..., slice, y, x). Of a single column per slice, the plane (slice, y) is shown.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.
        transpose (bool): Whether the first axis of a plane runs to the right instead of down, as in ``bart toimg``.
    """
    from matplotlib import image

    if magnitude.shape[-1] == 1 < magnitude.shape[-3]:
        magnitude = magnitude[..., 0][..., None, :, :]
    if transpose:
        magnitude = magnitude.swapaxes(-2, -1)
    tiles = magnitude.reshape(-1, *magnitude.shape[-2:])
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    mosaic = np.zeros((rows * columns, *tiles.shape[1:]), np.float32)
    mosaic[: len(tiles)] = tiles
    mosaic = mosaic.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
    metadata = {"Description": f"gray scale from {window[0]:g} to {window[1]:g}", "Software": history}
    image.imsave(path, mosaic, vmin=window[0], vmax=window[1] or 1.0, cmap="gray", metadata=metadata)
