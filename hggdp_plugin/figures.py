"""Figures of reconstructions beside their reference."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hggdp_plugin.metrics import match, score


def comparison(
    images: Mapping[str, NDArray],
    reference: NDArray,
    gain: float = 5.0,
    zoom: tuple[slice, slice] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw images beside their reference, with the error below each.

    Args:
        images (mapping): Images (y, x) by their titles.
        reference (array): Reference (y, x).
        gain (float): Factor by which the errors are multiplied.
        zoom (tuple of slices or None): Region (y, x) to show enlarged, in a row between images and errors.
        figure (Figure or None): Figure to draw into, such as ``plt.figure()``. None: a new one, unknown to pyplot.

    Returns:
        Figure: Magnitudes, scaled to the reference, from 0 to its maximum, and absolute differences of the magnitudes
        times ``gain`` on the same gray scale.

    Raises:
        ValueError: An image cannot be scored, see :func:`hggdp_plugin.metrics.score`.
    """
    ny, nx = reference.shape
    columns, rows = len(images) + 1, 2 if zoom is None else 3
    if figure is None:
        figure = Figure()
        FigureCanvasAgg(figure)
    figure.set_size_inches(2.6 * columns, 0.5 + 2.6 * rows * ny / nx)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    target = np.abs(reference) / np.abs(reference).max()
    _show(axes[0, 0], target, "reference")
    axes[-1, 0].text(0.5, 0.5, f"error x {gain:g}", ha="center", va="center", transform=axes[-1, 0].transAxes)
    if zoom is not None:
        _show(axes[1, 0], target[zoom], "")
    for (name, image), column in zip(images.items(), axes.T[1:], strict=True):
        scores = score(image, reference)
        magnitude, _ = match(np.abs(image), np.abs(reference))
        _show(column[0], magnitude, f"{name}\n{scores.psnr:.2f} dB, SSIM {scores.ssim:.3f}")
        if zoom is not None:
            _show(column[1], magnitude[zoom], "")
        _show(column[-1], gain * np.abs(magnitude - target), "")
    return figure


def _show(axis: Axes, image: NDArray, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=9)
