"""Write images as PNG, for a look at them."""

from pathlib import Path

import numpy as np


def write_png(
    path: Path, magnitude: np.ndarray, window: tuple[float, float], history: str, *, transpose: bool = False
) -> None:
    """Write all slices and frames side by side, in gray from the lower to the upper end of a window.

    Args:
        path (Path): The file.
        magnitude (array): Image (..., slice, y, x). Of a single column or row per slice, the plane (slice, y) or
            (slice, x) is shown.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.
        transpose (bool): Whether the first axis of a plane runs to the right instead of down, as in ``bart toimg``.
    """
    from matplotlib import image

    mosaic = _mosaic(magnitude, transpose)
    metadata = {"Description": f"gray scale from {window[0]:g} to {window[1]:g}", "Software": history}
    image.imsave(path, mosaic, vmin=window[0], vmax=window[1] or 1.0, cmap="gray", metadata=metadata)


def write_map(
    path: Path, values: np.ndarray, window: tuple[float, float], history: str, *, transpose: bool = False
) -> None:
    """Write all slices and frames of a map side by side, in colors, with a color bar.

    Args:
        path (Path): The file.
        values (array): Map (..., slice, y, x).
        window (tuple of float): Lower and upper end of the colors.
        history (str): What the map shows, and how it was made.
        transpose (bool): As in :func:`write_png`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mosaic = _mosaic(values, transpose)
    height, width = mosaic.shape
    dpi = 100
    figure = Figure(figsize=((width + 110) / dpi, height / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    total = width + 110
    axis = figure.add_axes((0, 0, width / total, 1))
    axis.set_axis_off()
    shown = axis.imshow(
        mosaic, cmap="inferno", vmin=window[0], vmax=window[1] or 1.0, interpolation="nearest", aspect="auto"
    )
    bar = figure.add_axes(((width + 15) / total, 0.1, 15 / total, 0.8))
    figure.colorbar(shown, cax=bar, extend="max")
    figure.savefig(path, metadata={"Description": f"colors from {window[0]:g} to {window[1]:g}", "Software": history})


def _mosaic(values: np.ndarray, transpose: bool) -> np.ndarray:
    """Arrange slices and frames (..., slice, y, x) side by side in one plane."""
    if values.shape[-1] == 1 < values.shape[-3]:
        values = values[..., 0][..., None, :, :]
    elif values.shape[-2] == 1 < values.shape[-3]:
        values = values[..., 0, :][..., None, :, :]
    if transpose:
        values = values.swapaxes(-2, -1)
    tiles = values.reshape(-1, *values.shape[-2:])
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    mosaic = np.zeros((rows * columns, *tiles.shape[1:]), np.float32)
    mosaic[: len(tiles)] = tiles
    return mosaic.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
