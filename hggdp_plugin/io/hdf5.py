"""Open HDF5 files for reading, and say in one line why one cannot be opened."""

import errno
import os

import h5py

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError, check_input


def open_hdf5(path: PathLike, wanted: str = "an HDF5 file") -> h5py.File:
    """Open an HDF5 file for reading; it is neither created nor changed.

    Args:
        path (path): The file.
        wanted (str): What to give instead, for messages.

    Returns:
        File: The open file.

    Raises:
        InputError: If there is no such file, or it is locked, not readable, empty, damaged or not HDF5.
    """
    check_input(path)
    where = os.fspath(path)
    try:
        return h5py.File(where, "r")
    except OSError as error:
        is_locked = "unable to lock file" in str(error)
        if is_locked and error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return h5py.File(where, "r", locking=False)  # a network drive without locks
        if is_locked:
            problem = "another program has the file open (locked)"
            raise InputError(where, problem, "close it there, or set HDF5_USE_FILE_LOCKING=FALSE") from None
        if not os.access(where, os.R_OK):
            raise InputError(where, "permission denied", "check the permissions of the file") from None
        if os.path.getsize(where) == 0:
            raise InputError(where, "it is empty", f"give {wanted}") from None
        what = "a damaged HDF5 file" if _has_signature(where) else "not an HDF5 file"
        raise InputError(where, f"it is {what} ({error})", f"give {wanted}, or copy it again") from None


def _has_signature(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"
