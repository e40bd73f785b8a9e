"""Finished batches, stored beside the output so that an interrupted reconstruction can continue."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import numpy as np

from hggdp_plugin import __version__
from hggdp_plugin._typing import Array
from hggdp_plugin.io.files import InputError, replacing
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.volume.batching import BatchSize

_logger = logging.getLogger(__name__)

_RECORD = "run.json"


class BatchNotes(TypedDict, total=False):
    """What is kept of a finished batch beside its images.

    Attributes:
        estimates: What was estimated of each frame.
        warnings: What was warned of.
    """

    estimates: list[dict[str, object]]
    warnings: list[str]


class ResumeStore:
    """A folder with one file per finished batch, and a record of the run that they belong to.

    The folder is made by :meth:`begin`, when a reconstruction needs it. Call :meth:`remove` once the image is written.

    Args:
        folder (Path): The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: str, batch_size: BatchSize) -> BatchSize:
        """Begin or continue a run. Batches of another run are deleted.

        Args:
            run (str): Fingerprint of everything that determines the image.
            batch_size (BatchSize): Batch size of a new run.

        Returns:
            BatchSize: The batch size that the run was begun with, which may have depended on the memory that was free.

        Raises:
            InputError: The folder holds something else.
        """
        self.folder.mkdir(exist_ok=True)
        record = self.folder / _RECORD
        if record.exists():
            try:
                found = json.loads(record.read_text())
                if found["run"] == run:
                    return BatchSize(*found["batch_size"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    record, "not the record of a reconstruction", f"delete {self.folder}, or choose another output name"
                ) from None
            _logger.info("%s was written with different data, options or version; starting over.", self.folder)
            shutil.rmtree(self.folder)
            self.folder.mkdir()
        elif any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise InputError(self.folder, "the folder contains other files", "delete it, or choose another output name")
        with replacing(record) as path:
            path.write_text(json.dumps({"run": run, "batch_size": batch_size}))
        return batch_size

    def __contains__(self, start: int) -> bool:
        """Return whether the batch that begins with slice ``start`` is finished."""
        return self._path(start).exists()

    def load(self, start: int) -> Array:
        """Return the images of the finished batch that begins with slice ``start``."""
        return np.load(self._path(start))

    def notes(self, start: int) -> BatchNotes:
        """Return what was noted of the finished batch that begins with slice ``start``."""
        path = self._path(start).with_suffix(".json")
        notes: BatchNotes = json.loads(path.read_text()) if path.exists() else {}
        return notes

    def save(self, start: int, images: Array, notes: Mapping[str, object]) -> None:
        """Store the images of a finished batch, after the notes. The files appear only when they are complete."""
        with replacing(self._path(start).with_suffix(".json")) as path:
            path.write_text(json.dumps(notes))
        with replacing(self._path(start)) as path:
            np.save(path, images)

    def remove(self) -> None:
        """Delete the folder, if this is one with a record."""
        if (self.folder / _RECORD).exists():
            shutil.rmtree(self.folder)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start}.npy"


def fingerprint(*parts: object) -> str:
    """Return a digest of everything that determines an image.

    Args:
        *parts (object): Arrays, priors, containers of these, and anything with a meaningful ``repr``.

    Returns:
        str: SHA-256 digest of the parts and of the versions of the software.
    """
    digest = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, ScorePrior):
            weights = {name: tensor.float().cpu().numpy() for name, tensor in part.model.state_dict().items()}
            part = [part.autocast, weights]
        if isinstance(part, dict):
            part = sorted(part.items())
        if isinstance(part, tuple | list):
            digest.update(f"{len(part)} of\n".encode())
            for item in part:
                add(item)
        elif isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}\n".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(f"{part!r}\n".encode())

    add([parts, __version__, *(version(name) for name in ("numpy", "sigpy", "torch"))])
    return digest.hexdigest()
