"""Pictures of reconstructions beside their reference."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hggdp_plugin.metrics import match, score


def comparison(
    images: Mapping[str, NDArray], reference: NDArray, gain: float = 5.0, zoom: tuple[slice, slice] | None = None
) -> Figure:
    """Draws images beside their reference, and below each its error.

    Args:
        images: Images (y, x) by the name to print above them.
        reference: Reference (y, x).
        gain: Factor by which the errors are brightened.
        zoom: Region (y, x) to show enlarged in a row between.

    Returns:
        The figure: magnitudes at the scale of the reference, from 0 to its maximum, and absolute differences of the
        magnitudes times ``gain`` on the same grey scale.

    Raises:
        ValueError: If an image cannot be scored (``metrics.score``).
    """
    ny, nx = reference.shape
    columns, rows = len(images) + 1, 2 if zoom is None else 3
    figure = Figure(figsize=(2.6 * columns, 0.5 + 2.6 * rows * ny / nx), layout="constrained")
    FigureCanvasAgg(figure)
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
        magnitude = np.abs(match(image, reference)[0])
        _show(column[0], magnitude, f"{name}\n{scores.psnr:.2f} dB, SSIM {scores.ssim:.3f}")
        if zoom is not None:
            _show(column[1], magnitude[zoom], "")
        _show(column[-1], gain * np.abs(magnitude - target), "")
    return figure


def _show(axis: Axes, image: NDArray, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=9)
