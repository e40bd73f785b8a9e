"""The rows of an HDF5 table as they lie in the file, without their variable-length payload.

HDF5 fetches the payload of a row even if only other fields are asked for, and allocates whatever length a damaged row
gives. Both are avoided by looking at the stored bytes first.
"""

import math

import h5py
import numpy as np

#: What a row holds in place of a variable-length field: its length, and where it lies in the file.
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


def stored_rows(table: h5py.Dataset) -> np.ndarray | None:
    """Reads the bytes of a one-dimensional compound data set.

    Args:
        table (Dataset): of a compound type, some members of which have variable length.

    Returns:
        array or None: structured, shape (rows,); a variable-length member gives its ``length`` (and its place). None
        if the rows are stored in a way that needs the HDF5 library, such as compressed.
    """
    stored = table.dtype
    fields = {name: (dtype, offset) for name, (dtype, offset, *__) in stored.fields.items()}
    lists = [name for name, (dtype, __) in fields.items() if h5py.check_vlen_dtype(dtype) is not None]
    kind = table.id.get_type()
    sizes = {kind.get_member_name(i).decode(): kind.get_member_type(i).get_size() for i in range(kind.get_nmembers())}
    if not _is_plain(table) or any(sizes[name] != _REFERENCE.itemsize for name in lists):
        return None
    row = np.dtype(
        {
            "names": list(fields),
            "formats": [_REFERENCE if name in lists else dtype for name, (dtype, __) in fields.items()],
            "offsets": [offset for __, offset in fields.values()],
            "itemsize": kind.get_size(),
        }
    )
    rows = np.zeros(table.size, row)
    content = np.memmap(table.file.filename, np.uint8, mode="r")
    for first, place in _pieces(table):
        count = min(math.prod(table.chunks or table.shape), len(rows) - first)
        piece = content[place : place + count * row.itemsize]
        if len(piece) == count * row.itemsize:  # else HDF5 will say what it thinks of an address beyond the file
            rows[first : first + count] = piece.view(row)
    return rows


def stored_length(text: h5py.Dataset) -> int | None:
    """Looks up the length of a text of variable length, without reading it.

    Args:
        text (Dataset): with a single element.

    Returns:
        int or None: its bytes; None if it is stored in another way.
    """
    kind = h5py.check_string_dtype(text.dtype)
    if kind is None or kind.length is not None or not _is_plain(text):
        return None
    content = np.memmap(text.file.filename, np.uint8, mode="r")
    references = [content[place : place + _REFERENCE.itemsize] for __, place in _pieces(text)]
    return max(
        (int(r.view(_REFERENCE)["length"][0]) for r in references if len(r) == _REFERENCE.itemsize), default=None
    )


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether a data set's bytes lie in its own file, unfiltered."""
    plan = dataset.id.get_create_plist()
    placed = plan.get_layout() == h5py.h5d.CHUNKED or dataset.id.get_offset() is not None
    return placed and not (plan.get_nfilters() or plan.get_external_count() or dataset.file.userblock_size)


def _pieces(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """First row and place in the file of each piece of contiguous rows."""
    if dataset.chunks is None:
        return [(0, dataset.id.get_offset())]
    pieces: list[tuple[int, int]] = []
    dataset.id.chunk_iter(lambda chunk: pieces.append((chunk.chunk_offset[0], chunk.byte_offset)))
    return pieces
