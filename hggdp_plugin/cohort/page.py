"""The page of a cohort: all files in one table, as one HTML file that needs no network."""

import base64
import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import matplotlib.image
import numpy as np

from hggdp_plugin._typing import Array
from hggdp_plugin.cohort.manifest import Entry, Manifest
from hggdp_plugin.io.files import replacing

#: Name of the page in the folder of the images.
PAGE = "cohort.html"
#: Longest side of a thumbnail in pixels, and the percentile of the magnitudes that is white.
THUMBNAIL_SIZE, WHITE_PERCENTILE = 96, 99.8

_TEMPLATE = Path(__file__).with_name("cohort.html")


def write_page(path: Path, manifest: Manifest) -> None:
    """Write the page of a cohort. Failed files come first, then those with warnings.

    Args:
        path (Path): File to write, beside the manifest.
        manifest (Manifest): The states of the files.
    """
    counts = manifest.counts()
    flagged = sum(entry.state == "done" and bool(entry.warnings) for entry in manifest)
    summary = [f"{number} {state}" for state, number in counts.items() if number or state == "done"]
    parts = {
        "title": html.escape(path.resolve().parent.name),
        "summary": html.escape(", ".join([*summary, f"{flagged} with warnings"])),
        "rows": "".join(_row(entry, path.parent) for entry in sorted(manifest, key=_rank)),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _TEMPLATE.read_text(encoding="utf-8"))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_thumbnail(path: Path, image: Array) -> None:
    """Write a small picture of the middle slice of the first frame.

    Args:
        path (Path): PNG file to write; its folder is made if necessary.
        image (array): Image (..., y, x), complex or magnitude.
    """
    slices = np.abs(image.reshape(-1, *image.shape[-3:])[0]) if image.ndim > 2 else np.abs(image)[None]
    picture = slices[len(slices) // 2]
    step = max(1, -(-max(picture.shape) // THUMBNAIL_SIZE))
    height, width = (size // step * step for size in picture.shape)
    picture = picture[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))
    white = float(np.percentile(picture, WHITE_PERCENTILE)) or 1.0
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        matplotlib.image.imsave(temporary, np.clip(picture / white, 0, 1), vmin=0, vmax=1, cmap="gray", format="png")


def _rank(entry: Entry) -> tuple[int, str]:
    """Return the place of a file: failed ones first, then flagged, pending and faultless ones."""
    order = {"failed": 0, "pending": 2, "done": 1 if entry.warnings else 3}
    return order[entry.state], entry.file


def _row(entry: Entry, folder: Path) -> str:
    """Return the table row of a file. Cells that sort by a number have it in ``data-key``."""
    flags = [entry.reason] if entry.reason else entry.warnings
    check = (entry.self_check or {}).get("prediction_error")
    output = Path(entry.output)
    name = html.escape(Path(entry.file).name)
    link = f'<a href="{html.escape(quote(f"{output.name}.json"))}">record</a>' if entry.state == "done" else ""
    cells = [
        ("image", "", _thumbnail(entry, folder)),
        ("file", name.lower(), f'<b title="{html.escape(entry.file)}">{name}</b> {link}'),
        ("state", str(_rank(entry)[0]), f'<span class="{entry.state}">{entry.state}</span>'),
        ("flags", str(-len(flags)), "".join(f"<p>{html.escape(flag)}</p>" for flag in flags)),
        ("self-check", _key(check), "" if check is None else f"{check:.2f}"),
        ("slices", _key(entry.slices), str(entry.slices or "")),
        ("seconds", _key(entry.seconds), f"{entry.seconds:.1f}"),
    ]
    return "<tr>" + "".join(f'<td data-name="{n}" data-key="{key}">{text}</td>' for n, key, text in cells) + "</tr>\n"


def _key(number: float | None) -> str:
    return "" if number is None else json.dumps(number)


def _thumbnail(entry: Entry, folder: Path) -> str:
    if entry.state != "done" or entry.thumbnail is None or not (file := folder / entry.thumbnail).exists():
        return ""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
