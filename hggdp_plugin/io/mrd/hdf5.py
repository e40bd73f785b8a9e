"""Acquisitions as they lie in an ISMRMRD HDF5 file."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd.hdf5_heap import stored_length, stored_rows

with warnings.catch_warnings():  # the package resets the interpreter's warning filters when it is imported
    from ismrmrd.hdf5 import acquisition_header_dtype

__all__ = ["Lines", "acquisition_header_dtype", "check_finite", "open_lines"]

#: Samples processed at once: few enough to stay in the processor's cache.
BLOCK_BYTES = 1 << 22
#: Headers read at once.
BLOCK_LINES = 1000
#: Samples (and whatever follows from them) are refused beyond this magnitude: their squares overflow.
MAX_SAMPLE = 1e15

_CONVERT = "convert the raw data again, or copy the file again if it was cut short"


@dataclass(frozen=True)
class Lines:
    """The acquisitions ("lines") of one measurement.

    Attributes:
        heads (array): acquisition headers, shape (lines,), of ``acquisition_header_dtype``.
        fetch (callable): ``fetch("data" or "traj", start, stop)`` gives an object array of one flat float array per
            line: real and imaginary parts in turn, of shape (channels, samples), or k of shape (samples, dims).
        where (str): file and group, for messages.
    """

    heads: np.ndarray
    fetch: Callable[[str, int, int], np.ndarray]
    where: str

    def samples(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the samples of the lines wanted, in blocks of lines of one shape.

        Args:
            wanted (array): bool, shape (lines,).

        Yields:
            tuple: line numbers, shape (n,), and their samples, complex64 (n, channels, samples).

        Raises:
            InputError: a line's data have not the length its header says.
        """
        shapes = np.stack([self.heads["active_channels"], self.heads["number_of_samples"]], axis=1).astype(np.int64)
        for numbers, flat in self._blocks("data", wanted, shapes * [2, 1]):
            yield numbers, flat.view(np.complex64).reshape(len(numbers), *shapes[numbers[0]])

    def trajectories(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the k-space positions of the lines wanted, in blocks of lines of one shape.

        Args:
            wanted (array): bool, shape (lines,).

        Yields:
            tuple: line numbers, shape (n,), and float32 (n, samples, dims).

        Raises:
            InputError: a line's trajectory has not the length its header says.
        """
        shapes = np.stack([self.heads["number_of_samples"], self.heads["trajectory_dimensions"]], axis=1)
        for numbers, flat in self._blocks("traj", wanted, shapes.astype(np.int64)):
            yield numbers, flat.reshape(len(numbers), *shapes[numbers[0]])

    def _blocks(self, field: str, wanted: np.ndarray, shapes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields line numbers and their payloads joined, float32; ``shapes`` (lines, 2) are those in the headers."""
        sizes = shapes.prod(axis=1)
        step = max(1, BLOCK_BYTES // max(1, int(np.median(4 * sizes))))
        for start in range(0, len(wanted), step):
            block = start + np.flatnonzero(wanted[start : start + step])
            if not block.size:
                continue
            payload = self.fetch(field, start, min(start + step, len(wanted)))
            found = np.fromiter(map(len, payload), np.int64, len(payload))[block - start]
            if (found != sizes[block]).any():
                wrong = int(np.argmax(found != sizes[block]))
                raise InputError(
                    f"{self.where}/data line {block[wrong]}",
                    f"its header announces {sizes[block[wrong]]} numbers of {field}, the file holds {found[wrong]}",
                    _CONVERT,
                )
            for shape in np.unique(shapes[block], axis=0):
                numbers = block[(shapes[block] == shape).all(axis=1)]
                flat = np.concatenate(list(payload[numbers - start]))
                yield numbers, flat.astype(np.float32, copy=False)


def check_finite(samples: np.ndarray, numbers: np.ndarray, where: str) -> None:
    """Refuses samples that are NaN, infinite or so large that their squares overflow.

    Args:
        samples (array): complex (lines, ...), contiguous.
        numbers (array): line numbers, shape (lines,).
        where (str): file and group, for messages.

    Raises:
        InputError: naming the first line concerned.
    """
    parts = samples.reshape(len(numbers), -1).view(samples.real.dtype)
    if parts.min() > -MAX_SAMPLE and parts.max() < MAX_SAMPLE:  # false for NaN
        return
    line = numbers[np.argmin((np.abs(parts) < MAX_SAMPLE).all(axis=1))]
    raise InputError(
        f"{where}/data line {line}",
        "it holds samples that are not finite (NaN or infinite)",
        "convert the raw data again, or remove the line",
    )


@contextmanager
def open_lines(path: str | os.PathLike[str], group: str | None) -> Iterator[tuple[bytes, Lines]]:
    """Opens an ISMRMRD file for reading; it is neither created nor changed.

    Args:
        path (path): HDF5 file.
        group (str or None): group that holds ``xml`` and ``data``; None looks for it.

    Yields:
        tuple: the XML header (bytes) and the acquisitions (Lines), readable while the file is open.

    Raises:
        InputError: not a file, not HDF5, not ISMRMRD, or damaged.
    """
    where = os.fspath(path)
    with _open(where) as file:
        name = group or _find_group(file, where)
        where = f"{where}:/{name.strip('/')}"
        xml = _guard(where, lambda: _read_xml(file, name, where))
        table = _guard(where, lambda: _check_table(file, name, where))

        def fetch(field: str, start: int, stop: int) -> np.ndarray:
            # Whole rows: h5py loses the memory of variable-length fields that are not asked for.
            place = f"{where}/data lines {start} to {stop - 1}"
            return _guard(place, lambda: table[start:stop])[field].reshape(-1)

        rows = _guard(f"{where}/data", lambda: stored_rows(table))
        if rows is None:
            blocks = [fetch("head", i, min(i + BLOCK_LINES, len(table))) for i in range(0, len(table), BLOCK_LINES)]
            source = np.concatenate(blocks)
        else:
            _check_lengths(rows, table, where)
            source = rows["head"]
        heads = _guard(f"{where}/data", lambda: _cast(source, acquisition_header_dtype, where))
        yield xml, Lines(heads, fetch, where)


def _open(where: str) -> h5py.File:
    if not os.path.exists(where):
        raise InputError(where, "there is no such file", "check the path")
    if not os.path.isfile(where):
        raise InputError(where, "it is not a file", "give an ISMRMRD (.h5) file")
    try:
        return h5py.File(where, "r")
    except OSError as error:
        if not os.access(where, os.R_OK):
            raise InputError(where, "it may not be read", "change its permissions") from None
        if os.path.getsize(where) == 0:
            raise InputError(where, "it is empty", "give an ISMRMRD (.h5) file") from None
        what = "a damaged HDF5 file" if _has_signature(where) else "not an HDF5 file"
        raise InputError(where, f"it is {what} ({error})", "give an ISMRMRD (.h5) file, or copy it again") from None


def _guard(where: str, read: Callable[[], Any]) -> Any:
    """Runs a read; what the HDF5 library throws at a damaged file (almost anything) becomes an InputError."""
    try:
        return read()
    except InputError:
        raise
    except Exception as error:
        raise InputError(where, f"HDF5 could not read it ({type(error).__name__}: {error})", _CONVERT) from None


def _has_signature(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _find_group(file: h5py.File, where: str) -> str:
    names = _guard(where, lambda: [name for name in file if isinstance(name, str)])  # bytes: not decodable, damaged
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
    except Exception:  # a dangling link or a damaged group is no measurement
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
        raise InputError(f"{where}/{member}", "it is not an HDF5 data set", _CONVERT)
    return found


def _file_size(dataset: h5py.Dataset) -> int:
    """Size of the file that really holds a data set (an external link may lead to another)."""
    return os.path.getsize(dataset.file.filename)


def _read_xml(file: h5py.File, name: str, where: str) -> bytes:
    dataset = _member(file, name, "xml", where)
    if dataset.size != 1:
        raise InputError(f"{where}/xml", f"it holds {dataset.size} documents, not one", _CONVERT)
    if h5py.check_string_dtype(dataset.dtype) is None:  # other types of variable length crash the library when damaged
        raise InputError(f"{where}/xml", "it is not text", _CONVERT)
    if max(dataset.dtype.itemsize, stored_length(dataset) or 0) > _file_size(dataset):
        raise InputError(f"{where}/xml", "it declares more text than the file holds", _CONVERT)
    value = dataset[()] if dataset.shape == () else dataset[(0,) * dataset.ndim]
    return value.encode() if isinstance(value, str) else bytes(value)


def _check_table(file: h5py.File, name: str, where: str) -> h5py.Dataset:
    table = _member(file, name, "data", where)
    place = f"{where}/data"
    if not {"head", "data", "traj"} <= set(table.dtype.names or ()):
        raise InputError(place, "it is not a table of acquisitions (head, traj, data)", "give an ISMRMRD raw file")
    for field in ("data", "traj"):
        base = h5py.check_vlen_dtype(table.dtype[field])
        if base is None or base.kind != "f":
            raise InputError(place, f"{field} is not a list of floating-point numbers per line", _CONVERT)
    if not (_is_sound(table.dtype) and _has_sequences(table)):
        raise InputError(place, "the description of its rows is damaged", _CONVERT)
    if table.size == 0:
        raise InputError(place, "it holds no acquisitions", "measure again, or give another file")
    # Every line has a sample of 8 bytes at least: a table that outgrows its file is a lie, and must not be allocated.
    if 8 * table.size > _file_size(table) or table.shape[0] != table.size:
        raise InputError(
            place, f"it declares {table.size} acquisitions in a file of {_file_size(table)} bytes", _CONVERT
        )
    return table


def _is_sound(dtype: np.dtype) -> bool:
    """Whether the members of a compound type lie side by side; reading overlapping ones crashes the HDF5 library."""
    end = 0
    for member, offset, *__ in sorted((dtype.fields or {}).values(), key=lambda field: field[1]):
        if offset < end or not _is_sound(member):
            return False
        end = offset + member.itemsize
    return end <= dtype.itemsize


def _has_sequences(table: h5py.Dataset) -> bool:
    """Whether the types of variable length are sequences, and of no undefined kind, which crashes the HDF5 library."""
    kind = table.id.get_type()
    members = [kind.get_member_type(i) for i in range(kind.get_nmembers())]
    # An encoded type has a prefix of two bytes and one for class and version; then three of flags, which tell the kind.
    return all(m.encode()[3:6] == bytes(3) for m in members if m.get_class() == h5py.h5t.VLEN)


def _check_lengths(rows: np.ndarray, table: h5py.Dataset, where: str) -> None:
    """Refuses rows whose payload is longer than the file: HDF5 would allocate it first and find out then."""
    size = _file_size(table)
    for field in ("data", "traj"):
        numbers = rows[field]["length"].astype(np.int64)
        if numbers.sum() * h5py.check_vlen_dtype(table.dtype[field]).itemsize > size:
            line = int(np.argmax(numbers))
            raise InputError(
                f"{where}/data line {line}",
                f"it declares {numbers[line]} numbers of {field}, too many for a file of {size} bytes",
                _CONVERT,
            )


def _cast(source: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """Copies a structured array field by field, by name: files differ in padding and byte order."""
    missing = set(dtype.names or ()) - set(source.dtype.names or ())
    if missing:
        raise InputError(f"{where}/data", f"the line headers lack {', '.join(sorted(missing))}", _CONVERT)
    target = np.zeros(source.shape, dtype)
    for name in dtype.names or ():
        nested = dtype[name].names is not None
        target[name] = _cast(source[name], dtype[name], where) if nested else source[name]
    return target
