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
    plan = table.id.get_create_plist()
    simple = plan.get_layout() == h5py.h5d.CHUNKED or table.id.get_offset() is not None
    simple &= plan.get_nfilters() == 0 and plan.get_external_count() == 0 and table.file.userblock_size == 0
    if not simple or any(sizes[name] != _REFERENCE.itemsize for name in lists):
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
    for first, place in _pieces(table, plan):
        count = min(math.prod(table.chunks or table.shape), len(rows) - first)
        piece = content[place : place + count * row.itemsize]
        if len(piece) == count * row.itemsize:  # else HDF5 will say what it thinks of an address beyond the file
            rows[first : first + count] = piece.view(row)
    return rows


def _pieces(table: h5py.Dataset, plan: h5py.h5p.PropDCID) -> list[tuple[int, int]]:
    """First row and place in the file of each piece of contiguous rows."""
    if plan.get_layout() != h5py.h5d.CHUNKED:
        return [(0, table.id.get_offset())]
    pieces: list[tuple[int, int]] = []
    table.id.chunk_iter(lambda chunk: pieces.append((chunk.chunk_offset[0], chunk.byte_offset)))
    return pieces
