"""Finished slices kept beside the output, so that a run that was killed continues where it was."""

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hggdp_plugin import __version__
from hggdp_plugin.io import InputError
from hggdp_plugin.io.files import replacing
from hggdp_plugin.prior import ScorePrior

_NOTE = "run.json"


class Finished:
    """A folder with a file per finished batch, and a note of the run that they belong to.

    Args:
        folder (Path): Made if it is not there; what it holds of another run is removed.
        run (str): Fingerprint of all that decides the result.
        sizes (list of int): How the slices are batched, which may depend on the free memory.
        log (function): Told if another run's slices are given up.

    Attributes:
        sizes (dict): As given, or those with which the run began: rounding depends on them.

    Raises:
        InputError: The folder holds something else.
    """

    def __init__(self, folder: Path, run: str, sizes: list[int], log: Callable[[str], None]) -> None:
        self.folder, self.sizes = folder, sizes
        folder.mkdir(exist_ok=True)
        note = folder / _NOTE
        if note.exists():
            try:
                found = json.loads(note.read_text())
                if found["run"] == run:
                    self.sizes = found["sizes"]
                    return
            except (ValueError, KeyError, TypeError):
                raise InputError(note, "it is no note of a reconstruction", f"remove {folder}") from None
            log(f"{folder} holds slices of other data, options or software: begun anew.")
            shutil.rmtree(folder)
            folder.mkdir()
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise InputError(folder, "it holds other files", "remove it, or choose another output name")
        with replacing(note) as path:
            path.write_text(json.dumps({"run": run, "sizes": sizes}))

    def load(self, start: int) -> np.ndarray | None:
        """The batch that begins with slice ``start``, if it is finished."""
        path = self._path(start)
        return np.load(path) if path.exists() else None

    def save(self, start: int, image: np.ndarray) -> None:
        """Keeps a finished batch; its file is whole or not there."""
        with replacing(self._path(start)) as path:
            np.save(path, image)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start}.npy"


def discard(folder: Path) -> None:
    """Removes the folder of a run whose result is safe, if there was one."""
    if (folder / _NOTE).exists():
        shutil.rmtree(folder)


def fingerprint(*parts: Any) -> str:
    """Digest of arrays, networks, whatever contains them, the text of all else, and the software."""
    digest = hashlib.sha256()

    def add(part: Any) -> None:
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
