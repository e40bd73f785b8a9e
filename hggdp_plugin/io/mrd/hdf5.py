"""ISMRMRD HDF5 files: opened without trusting them, and written so that a full disk is noticed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from hggdp_plugin._typing import PathLike
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.hdf5 import open_hdf5
from hggdp_plugin.io.mrd._ismrmrd import acquisition_header_dtype
from hggdp_plugin.io.mrd.acquisitions import CONVERT_AGAIN, Acquisitions
from hggdp_plugin.io.mrd.hdf5_heap import stored_length, stored_rows

#: Acquisition headers that are read at once.
BLOCK_HEADERS = 1000

T = TypeVar("T")


@contextmanager
def open_acquisitions(path: PathLike, group: str | None) -> Iterator[tuple[bytes, Acquisitions]]:
    """Open an ISMRMRD file for reading; it is neither created nor changed.

    Args:
        path (path): HDF5 file.
        group (str or None): Group that holds ``xml`` and ``data``; None looks for it.

    Yields:
        tuple: The XML header (bytes), and the acquisitions, readable while the file is open.

    Raises:
        InputError: If it is not a file, not HDF5, not ISMRMRD, or damaged.
    """
    where = os.fspath(path)
    with open_hdf5(where, "an ISMRMRD (.h5) file") as file:
        name = group or _find_group(file, where)
        source = f"{where}:/{name.strip('/')}"
        xml = _guard(source, lambda: _read_xml(file, name, source))
        table = _guard(source, lambda: _check_table(file, name, source))

        def rows(start: int, stop: int) -> np.ndarray:
            # Whole rows: h5py leaks the memory of variable-length fields that are not asked for.
            location = f"{source}/data acquisitions {start} to {stop - 1}"
            return _guard(location, lambda: table[start:stop]).reshape(-1)

        def fetch(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            block = rows(start, stop)
            return block["data"], block["traj"]

        stored = _guard(f"{source}/data", lambda: stored_rows(table))
        if stored is None:
            starts = range(0, len(table), BLOCK_HEADERS)
            headers = np.concatenate([rows(i, min(i + BLOCK_HEADERS, len(table)))["head"] for i in starts])
        else:
            _check_lengths(stored, table, source)
            headers = stored["head"]
        headers = _guard(f"{source}/data", lambda: _cast(headers, acquisition_header_dtype, source))
        yield xml, Acquisitions(headers, fetch, source)


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """Make an HDF5 file in memory, then write it: on a full disk HDF5 loses data without an error in Python.

    Args:
        path (Path): The file.

    Yields:
        File: Empty, to be filled.
    """
    with h5py.File(path, "w", driver="core", backing_store=False, block_size=1 << 22) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    path.write_bytes(content)


def _guard(where: str, read: Callable[[], T]) -> T:
    """Run a read; whatever the HDF5 library raises at a damaged file (almost anything) becomes an InputError."""
    try:
        return read()
    except InputError:
        raise
    except Exception as error:
        raise InputError(where, f"HDF5 could not read it ({type(error).__name__}: {error})", CONVERT_AGAIN) from None


def _find_group(file: h5py.File, where: str) -> str:
    names = _guard(where, lambda: [name for name in file if isinstance(name, str)])  # undecodable names are bytes
    if "dataset" in names:
        return "dataset"
    found = [name for name in names if _is_measurement(file, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(where, f"it holds several measurements: {', '.join(found)}", "choose one with --group")
    if "kspace" in names:
        raise InputError(
            where,
            "it holds a k-space array (fastMRI layout), not ISMRMRD acquisitions",
            "save the array as .npy with axes (coil, ky, kx)",
        )
    raise InputError(
        where,
        f"no group holds ISMRMRD raw data (found: {', '.join(names)[:200] or 'nothing'})",
        "give an ISMRMRD raw file, or name the group with --group",
    )


def _is_measurement(file: h5py.File, name: str) -> bool:
    try:
        return isinstance(file[name], h5py.Group) and {"xml", "data"} <= set(file[name])
    except Exception:  # a dangling link or a damaged group is not a measurement
        return False


def _member(file: h5py.File, name: str, member: str, where: str) -> h5py.Dataset:
    if name not in file:
        raise InputError(where, "there is no such group, or its link leads nowhere", "name another with --group")
    if not isinstance(file[name], h5py.Group):
        raise InputError(
            where,
            "it is an array, not a group of ISMRMRD acquisitions",
            "give an ISMRMRD raw file, or save the array as .npy with axes (coil, ky, kx)",
        )
    if member not in file[name]:
        hint = " (it holds images)" if any(key.startswith("image") for key in file[name]) else ""
        raise InputError(where, f"the group has no {member!r}{hint}", "give an ISMRMRD raw file, or another --group")
    found = file[name][member]
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{where}/{member}", "it is not an HDF5 data set", CONVERT_AGAIN)
    return found


def _file_size(dataset: h5py.Dataset) -> int:
    """Return the size of the file that really holds a data set (an external link may lead to another)."""
    return os.path.getsize(dataset.file.filename)


def _read_xml(file: h5py.File, name: str, where: str) -> bytes:
    dataset = _member(file, name, "xml", where)
    if dataset.size != 1:
        raise InputError(f"{where}/xml", f"it holds {dataset.size} documents, not one", CONVERT_AGAIN)
    if h5py.check_string_dtype(dataset.dtype) is None:  # other types of variable length crash the library when damaged
        raise InputError(f"{where}/xml", "it is not text", CONVERT_AGAIN)
    if max(dataset.dtype.itemsize, stored_length(dataset) or 0) > _file_size(dataset):
        raise InputError(f"{where}/xml", "it declares more text than the file holds", CONVERT_AGAIN)
    value = dataset[()] if dataset.shape == () else dataset[(0,) * dataset.ndim]
    return value.encode() if isinstance(value, str) else bytes(value)


def _check_table(file: h5py.File, name: str, where: str) -> h5py.Dataset:
    table = _member(file, name, "data", where)
    location = f"{where}/data"
    if not {"head", "data", "traj"} <= set(table.dtype.names or ()):
        raise InputError(location, "it is not a table of acquisitions (head, traj, data)", "give an ISMRMRD raw file")
    for field in ("data", "traj"):
        base = h5py.check_vlen_dtype(table.dtype[field])
        if base is None or base.kind != "f":
            raise InputError(location, f"{field} is not a list of numbers per acquisition", CONVERT_AGAIN)
    if not (_is_sound(table.dtype) and _has_sequences(table)):
        raise InputError(location, "the description of its rows is damaged", CONVERT_AGAIN)
    if table.size == 0:
        raise InputError(location, "it holds no acquisitions", "measure again, or give another file")
    # Every acquisition has a sample of 8 bytes at least: a table larger than its file is corrupt; do not allocate it.
    if 8 * table.size > _file_size(table) or table.shape[0] != table.size:
        raise InputError(
            location, f"it declares {table.size} acquisitions in a file of {_file_size(table)} bytes", CONVERT_AGAIN
        )
    return table


def _is_sound(dtype: np.dtype) -> bool:
    """Return whether the members of a compound type do not overlap; reading overlapping ones crashes HDF5."""
    end = 0
    for member, offset, *__ in sorted((dtype.fields or {}).values(), key=lambda field: field[1]):
        if offset < end or not _is_sound(member):
            return False
        end = offset + member.itemsize
    return end <= dtype.itemsize


def _has_sequences(table: h5py.Dataset) -> bool:
    """Return whether the types of variable length are sequences; an undefined kind crashes HDF5."""
    kind = table.id.get_type()
    members = [kind.get_member_type(i) for i in range(kind.get_nmembers())]
    # An encoded type has two bytes of prefix, one of class and version, then three of flags, which give the kind.
    return all(m.encode()[3:6] == bytes(3) for m in members if m.get_class() == h5py.h5t.VLEN)


def _check_lengths(rows: np.ndarray, table: h5py.Dataset, where: str) -> None:
    """Refuse rows whose payload is longer than the file: HDF5 would allocate it first."""
    size = _file_size(table)
    for field in ("data", "traj"):
        numbers = rows[field]["length"].astype(np.int64)
        if numbers.sum() * h5py.check_vlen_dtype(table.dtype[field]).itemsize > size:
            number = int(np.argmax(numbers))
            raise InputError(
                f"{where}/data acquisition {number}",
                f"it declares {numbers[number]} numbers of {field}, too many for a file of {size} bytes",
                CONVERT_AGAIN,
            )


def _cast(source: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """Copy a structured array field by field, by name: files differ in padding and byte order."""
    missing = set(dtype.names or ()) - set(source.dtype.names or ())
    if missing:
        raise InputError(f"{where}/data", f"the acquisition headers lack {', '.join(sorted(missing))}", CONVERT_AGAIN)
    target = np.zeros(source.shape, dtype)
    for name in dtype.names or ():
        nested = dtype[name].names is not None
        target[name] = _cast(source[name], dtype[name], where) if nested else source[name]
    return target
