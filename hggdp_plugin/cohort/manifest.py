"""The manifest of a cohort: the state of each file, as JSON that a person can read too."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from hggdp_plugin.io.files import InputError, files_of, replacing

#: Name of the manifest in the folder of the images.
MANIFEST = "cohort.json"
#: Seconds between two writings of the manifest while files are finished.
SAVE_INTERVAL = 1.0


@dataclass
class Entry:
    """What is known of one file.

    Attributes:
        file (str): Absolute path of the input.
        output (str): Absolute path of the image.
        state (str): ``"pending"``, ``"done"`` or ``"failed"``.
        reason (str or None): Why it failed, in one line.
        sha256 (str or None): Digest of the input.
        size (int or None): Bytes of the input.
        modified (int or None): When the input was modified, in ns.
        settings (str or None): Digest of the options that the image was made with.
        seconds (float): Time that workers spent on it.
        slices (int or None): Number of slices and frames.
        self_check (dict or None): The worst figures of the self-check, if it was asked for.
        warnings (list of str): Warnings of the reconstruction.
        thumbnail (str or None): Picture of the middle slice, relative to the manifest.
    """

    file: str
    output: str
    state: Literal["pending", "done", "failed"] = "pending"
    reason: str | None = None
    sha256: str | None = None
    size: int | None = None
    modified: int | None = None
    settings: str | None = None
    seconds: float = 0.0
    slices: int | None = None
    self_check: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    thumbnail: str | None = None

    def is_done(self, settings: str) -> bool:
        """Return whether the image is there and was made from the input as it is now, with these settings.

        Args:
            settings (str): Digest of the options.

        Returns:
            bool: Whether nothing is to do.
        """
        if self.state != "done" or self.settings != settings or (self.size, self.modified) != file_state(self.file):
            return False
        folder = Path(self.output)
        return folder.is_dir() or all(path.exists() for path in files_of(self.output))


class Manifest:
    """The states of all files, kept in a JSON file.

    Args:
        path (Path): The file; it is read if it exists.

    Attributes:
        entries (dict): Entries by the absolute path of the input, in the order in which they were added.

    Raises:
        InputError: The file is not a manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._saved = 0.0
        if path.exists():
            known = {entry.name for entry in fields(Entry)}
            try:
                found = json.loads(path.read_text(encoding="utf-8"))["files"]
                entries = [Entry(**{key: value for key, value in item.items() if key in known}) for item in found]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(path, "not the manifest of a cohort", "delete it, or choose another folder") from None
            self.entries = {entry.file: entry for entry in entries}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def save(self, *, at_once: bool = True) -> None:
        """Write the manifest; the file is always complete.

        Args:
            at_once (bool): Otherwise only if the last time was more than :data:`SAVE_INTERVAL` seconds ago.
        """
        if not at_once and time.monotonic() < self._saved + SAVE_INTERVAL:
            return
        content = {"summary": self.counts(), "files": [asdict(entry) for entry in self]}
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._saved = time.monotonic()

    def counts(self) -> dict[str, int]:
        """Return how many files are in each state."""
        states = [entry.state for entry in self]
        return {state: states.count(state) for state in ("done", "failed", "pending")}


def file_state(path: str) -> tuple[int | None, int | None]:
    """Return size and time of modification of a file; None if there is no such file."""
    try:
        status = Path(path).stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns
