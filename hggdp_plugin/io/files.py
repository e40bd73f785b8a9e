"""Output files: checked before the work, written beside the target and renamed when complete."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import h5py


class InputError(ValueError):
    """A file (or the request made of it) cannot be used.

    Its text is a single line: the file and the place in it, what is wrong, and what to do.

    Args:
        where (str): file, with the place inside it where there is one.
        problem (str): what is wrong.
        remedy (str): what the user can do about it.
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        line = " ".join(f"{where}: {problem}; {remedy}".split())
        super().__init__(line.encode("utf-8", "backslashreplace").decode())  # file names need not be decodable


#: Suffixes of the formats that images are written in.
IMAGE_SUFFIXES = (".h5", ".nii", ".nii.gz", ".npy", ".cfl", ".png")

PathLike = str | os.PathLike[str]


def suffix_of(path: PathLike) -> str:
    """The suffix that names a file's format, in lower case; ``.nii.gz`` is one suffix."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def check_output(path: PathLike, inputs: Sequence[PathLike] = (), overwrite: bool = False) -> None:
    """Finds out before the work whether an image can be written to a path.

    Args:
        path (path): the image file to write.
        inputs (sequence of path): files that are read; none of them may be the output.
        overwrite (bool): whether an existing file may be replaced.

    Raises:
        InputError: unknown suffix, missing package, no such folder, not writable, exists, or is an input.
    """
    suffix = suffix_of(path)
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            path, f"no image format has the suffix {suffix!r}", f"choose one of {', '.join(IMAGE_SUFFIXES)}"
        )
    if suffix.startswith(".nii") and find_spec("nibabel") is None:
        raise InputError(path, "NIfTI files need the package nibabel", "pip install 'hggdp_plugin[nifti]'")
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError(path, "its folder does not exist", f"create {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(path, "its folder may not be written to", "choose another folder")
    for target in files_of(path):
        if target.is_dir():
            raise InputError(target, "it is a folder", "choose another name")
        if any(target.exists() and Path(i).exists() and target.samefile(i) for i in inputs):
            raise InputError(target, "it is also an input", "choose another output name")
        if target.exists() and not overwrite:
            raise InputError(target, "it exists already", "choose another name, or allow it with --overwrite")


def files_of(path: PathLike) -> tuple[Path, ...]:
    """The files that an output consists of: two for BART's cfl, else one."""
    path = Path(path)
    return (path.with_suffix(".hdr"), path) if suffix_of(path) == ".cfl" else (path,)


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """Makes an HDF5 file in memory, then writes it: on a full disk HDF5 loses data without an error in Python.

    Args:
        path (Path): the file.

    Yields:
        File: empty, to be filled.
    """
    with h5py.File(path, "w", driver="core", backing_store=False, block_size=1 << 22) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    path.write_bytes(content)


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Gives a temporary path beside a target, and renames what was written there when all went well.

    Args:
        path (path): the target, whose suffix the temporary path keeps.

    Yields:
        Path: where to write.

    Raises:
        InputError: the file could not be written; nothing is left behind.
    """
    path = Path(path)
    suffix = path.name[len(path.name) - len(suffix_of(path)) :]
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}{suffix}")
    try:
        yield temporary
        for source, target in zip(files_of(temporary), files_of(path), strict=True):
            with open(source, "rb") as file:  # else a power failure may leave an empty file under the name
                os.fsync(file.fileno())
            os.replace(source, target)
    except OSError as error:  # h5py and nibabel pass on the operating system's: disk full, quota, permission
        raise InputError(
            path, f"it could not be written ({error})", "free some space or choose another folder"
        ) from None
    finally:
        for source in files_of(temporary):
            source.unlink(missing_ok=True)
