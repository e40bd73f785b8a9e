"""The rows of an HDF5 table as they lie in the file, without their variable-length payload.

HDF5 fetches the payload of a row even if only other fields are asked for, allocates whatever length a damaged row
gives, and loops forever in some damaged heaps. Looking at the stored bytes first avoids all of this.
"""

import math

import h5py
import numpy as np

#: Global heaps hold the fields of variable length: the header of a heap, and of each object in it.
_HEAP = np.dtype([("magic", "S4"), ("version", "u1"), ("reserved", "V3"), ("size", "<u8")])
_OBJECT = np.dtype([("index", "<u2"), ("count", "<u2"), ("reserved", "V4"), ("size", "<u8")])
#: What a row holds instead of a variable-length field: its length, and its address in the file.
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


def stored_rows(table: h5py.Dataset) -> np.ndarray | None:
    """Read the bytes of a one-dimensional compound data set.

    Args:
        table (Dataset): Data set of a compound type, some members of which have variable length.

    Returns:
        array or None: Structured array (rows,); a variable-length member has a ``length`` (and its address). None if
        the rows are stored in a way that needs the HDF5 library, such as compressed.

    Raises:
        ValueError: If a heap that the rows refer to is damaged.
    """
    stored = table.dtype
    fields = {name: (dtype, offset) for name, (dtype, offset, *__) in stored.fields.items()}
    lists = [name for name, (dtype, _) in fields.items() if h5py.check_vlen_dtype(dtype) is not None]
    kind = table.id.get_type()
    sizes = {kind.get_member_name(i).decode(): kind.get_member_type(i).get_size() for i in range(kind.get_nmembers())}
    if not _is_plain(table) or any(sizes[name] != _REFERENCE.itemsize for name in lists):
        return None
    row = np.dtype(
        {
            "names": list(fields),
            "formats": [_REFERENCE if name in lists else dtype for name, (dtype, _) in fields.items()],
            "offsets": [offset for __, offset in fields.values()],
            "itemsize": kind.get_size(),
        }
    )
    rows = np.zeros(table.size, row)
    content = np.memmap(table.file.filename, np.uint8, mode="r")
    for first, offset in _pieces(table):
        count = min(math.prod(table.chunks or table.shape), len(rows) - first)
        piece = content[offset : offset + count * row.itemsize]
        if len(piece) == count * row.itemsize:  # otherwise h5py raises for an address past the end of the file
            rows[first : first + count] = piece.view(row)
    for name in lists:
        _check_heaps(content, rows[name])
    return rows


def stored_length(text: h5py.Dataset) -> int | None:
    """Look up the length of a text of variable length, without reading it.

    Args:
        text (Dataset): Data set with a single element.

    Returns:
        int or None: Number of bytes; None if the text is stored in another way.

    Raises:
        ValueError: If the heap that holds it is damaged.
    """
    kind = h5py.check_string_dtype(text.dtype)
    if kind is None or kind.length is not None or not _is_plain(text):
        return None
    content = np.memmap(text.file.filename, np.uint8, mode="r")
    references = _gather(content, np.array([offset for _, offset in _pieces(text)], np.int64), _REFERENCE)
    _check_heaps(content, references)
    return int(references["length"].max(initial=0))


def _gather(content: np.ndarray, offsets: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Copy one structure from each offset of the file."""
    if len(offsets) and offsets.max() > len(content) - dtype.itemsize:
        raise ValueError("an address lies beyond the end of the file")
    return content[offsets[:, None] + np.arange(dtype.itemsize)].view(dtype)[:, 0]


def _check_heaps(content: np.ndarray, references: np.ndarray) -> None:
    """Walk through the objects of the heaps: each must begin inside its heap, after the one before."""
    address = np.unique(references["address"][references["length"] > 0])
    if len(address) and address[-1] > len(content):
        raise ValueError("a heap lies beyond the end of the file")
    offset = address.astype(np.int64)
    heap = _gather(content, offset, _HEAP)
    if (heap["magic"] != b"GCOL").any() or (heap["size"] > np.uint64(len(content))).any():
        raise ValueError("a heap is damaged")
    end, offset = offset + heap["size"].astype(np.int64), offset + _HEAP.itemsize
    while (inside := offset + _OBJECT.itemsize <= end).any():
        end, offset = end[inside], offset[inside]
        item = _gather(content, offset, _OBJECT)
        if (item["size"] > np.uint64(len(content))).any():
            raise ValueError("an object in a heap is too large")
        size = item["size"].astype(np.int64)
        size = np.where(item["index"] == 0, size, _OBJECT.itemsize + (size + 7) // 8 * 8)  # number 0 is free space
        if (size < _OBJECT.itemsize).any():
            raise ValueError("an object in a heap is too small")
        offset = offset + size


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether the bytes of a data set lie in its own file, unfiltered."""
    plan = dataset.id.get_create_plist()
    placed = plan.get_layout() == h5py.h5d.CHUNKED or dataset.id.get_offset() is not None
    return placed and not (plan.get_nfilters() or plan.get_external_count() or dataset.file.userblock_size)


def _pieces(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """Return the first row and the file offset of each piece of contiguous rows."""
    if dataset.chunks is None:
        return [(0, dataset.id.get_offset())]
    pieces: list[tuple[int, int]] = []
    dataset.id.chunk_iter(lambda chunk: pieces.append((chunk.chunk_offset[0], chunk.byte_offset)))
    return pieces
