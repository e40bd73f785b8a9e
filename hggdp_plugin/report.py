"""A report of one reconstruction that a person reads: one HTML file without links to anything else."""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.image
import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array, PathLike
from hggdp_plugin.io import RawData
from hggdp_plugin.io.files import replacing
from hggdp_plugin.record import versions

#: Frames that a report shows at most, evenly spaced: the file stays small enough for a browser.
MAX_FRAMES = 200
#: Images are shown from 0 to this percentile of all their magnitudes.
WINDOW_PERCENTILE = 99.8

_FRAME_AXES = ("repetition", "contrast", "phase", "set", "slice")
_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title (str): Headline, such as the name of the raw data.
        image (array): Reconstructed image (repetition, contrast, phase, set, slice, y, x), complex or magnitude.
        zero_filled (None or array): Image without the method, of the shape of ``image``.
        std (None or array): Standard error of the complex image, of the shape of ``image`` and in its units.
        mask (None or array): Which samples were measured, bool (ky, kx) or (kz, ky, kx), of one frame.
        messages (sequence): Log of the run as pairs of level and text.
        facts (mapping): Further facts by their names: prior, schedule, seed, self-check ...
        seconds (mapping): Time of each part of the run by its name.
    """

    title: str
    image: Array
    zero_filled: Array | None = None
    std: Array | None = None
    mask: Array | None = None
    messages: Sequence[tuple[str, str]] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_report(path: PathLike, report: Report) -> None:
    """Write a report as one HTML file, which needs no network to be read.

    Args:
        path (path): File to write. An existing file is replaced when the new one is complete.
        report (Report): What to show.

    Raises:
        ValueError: An image is not of the shape of ``report.image``.
        InputError: The file cannot be written.
    """
    for name in ("zero_filled", "std"):
        other = getattr(report, name)
        if other is not None and other.shape != report.image.shape:
            raise ValueError(f"{name}: expected the shape of the image, {report.image.shape}, got {other.shape}")
    page = _TEMPLATE.read_text(encoding="utf-8")
    levels = {"WARNING": "warning", "ERROR": "warning"}
    warnings = [text for level, text in report.messages if level in levels]
    parts = {
        "title": html.escape(report.title),
        "warnings": "".join(f"<li>{html.escape(text)}</li>" for text in warnings),
        "has_warnings": "" if warnings else "hidden",
        "log": "\n".join(html.escape(text) for _, text in report.messages),
        "facts": _table(report.facts),
        "seconds": _table({name: f"{value:.1f} s" for name, value in report.seconds.items()}),
        "versions": _table(versions()),
        "mask": "" if report.mask is None else _mask_figure(report.mask),
        "frames": json.dumps(_frames(report)),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def zero_filled_image(raw: RawData) -> Array | None:
    """Return the root sum of squares of the zero-filled coil images, as the method's image is placed.

    Args:
        raw (RawData): The measurement.

    Returns:
        array or None: Magnitude (repetition, contrast, phase, set, slice, y, x); None off the Cartesian grid.
    """
    if raw.coord is not None:
        return None
    combined = np.zeros((*raw.frame_shape, *raw.grid), np.complex64)
    for frame in np.ndindex(raw.frame_shape):  # one by one: all coil images at once would take a volume's memory again
        combined[frame] = np.linalg.norm(sp.ifft(raw.ksp[frame], axes=range(-len(raw.grid), 0)), axis=0)
    return np.abs(raw.to_image(combined))


def _frames(report: Report) -> list[Mapping[str, object]]:
    """Return the label and the pictures of each frame that is shown."""
    shape = report.image.shape[:-2]
    axes = [name for name, size in zip(_FRAME_AXES[-len(shape) :], shape, strict=True) if size > 1]
    numbers = list(np.ndindex(*shape))
    numbers = numbers[:: -(-len(numbers) // MAX_FRAMES)]
    series = {"HGGDP": (report.image, "gray"), "zero-filled": (report.zero_filled, "gray")}
    shown: list[tuple[str, Array, float, str]] = []
    for name, (image, colors) in series.items():
        if image is not None:
            shown.append((name, image, _window(image), colors))
    if report.std is not None:
        shown.append(("standard error", report.std, _window(report.std), "inferno"))
    frames: list[Mapping[str, object]] = []
    for number in numbers:
        places = dict(zip(_FRAME_AXES[-len(shape) :], number, strict=True))
        label = ", ".join(f"{name} {places[name] + 1}" for name in axes) or "the only slice"
        pictures = [
            {"name": name, "image": _png(np.abs(image[number]) / top, colors), "top": f"{top:.3g}"}
            for name, image, top, colors in shown
        ]
        frames.append({"label": label, "pictures": pictures})
    return frames


def _window(image: Array) -> float:
    return float(np.percentile(np.abs(image), WINDOW_PERCENTILE)) or 1.0


def _png(values: Array, colors: str) -> str:
    """Return an image with values from 0 to 1 as a data URL."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, np.clip(values, 0, 1), vmin=0, vmax=1, cmap=colors, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _mask_figure(mask: Array) -> str:
    caption = f"k-space, {100 * float(np.mean(mask)):.1f} % measured"
    if mask.ndim == 3:
        mask, caption = mask[len(mask) // 2], f"{caption}; its central plane"
    picture = _png(np.asarray(mask, np.float32), "gray")
    return f'<figure><img src="{picture}" alt=""><figcaption>{caption}</figcaption></figure>'


def _table(facts: Mapping[str, object]) -> str:
    rows = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items())
    return "".join(rows)
