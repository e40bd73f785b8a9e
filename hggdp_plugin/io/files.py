"""Files in and out: refused in one clear line, written beside the target and renamed when complete."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from hggdp_plugin._typing import PathLike


class InputError(ValueError):
    """A file, or what is asked of it, cannot be used.

    The message is a single line: the file and the location in it, what is wrong, and what to do.

    Args:
        where (object): File, with the location inside it if there is one, or option.
        problem (str): What is wrong.
        remedy (str): What the user can do about it.

    Example:
        >>> raise InputError("raw.h5", "it has no acquisitions", "choose another file")
        Traceback (most recent call last):
        hggdp_plugin.io.files.InputError: raw.h5: it has no acquisitions; choose another file
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        line = " ".join(f"{where}: {problem}; {remedy}".split())
        super().__init__(line.encode("utf-8", "backslashreplace").decode())  # file names need not be decodable


#: Suffixes of the formats that images are written in.
IMAGE_SUFFIXES = (".h5", ".nii", ".nii.gz", ".npy", ".cfl", ".png")


def suffix_of(path: PathLike) -> str:
    """Return the suffix that names the format of a file, in lower case; ``.nii.gz`` is one suffix."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def check_input(path: PathLike) -> None:
    """Refuse a path that is not a file.

    Args:
        path (path): The file to read.

    Raises:
        InputError: If there is no such file.
    """
    if not os.path.exists(path):
        raise InputError(os.fspath(path), "there is no such file", "check the path")
    if not os.path.isfile(path):
        raise InputError(os.fspath(path), "it is not a file", "check the path")


def check_package(path: PathLike, package: str, extra: str, kind: str) -> None:
    """Refuse a format whose optional package is not installed.

    Args:
        path (path): The file, for the message.
        package (str): Name of the package.
        extra (str): Extra of this package that installs it.
        kind (str): What such files are called, in the plural.

    Raises:
        InputError: If the package is not installed.
    """
    if find_spec(package) is None:
        raise InputError(path, f"{kind} need the package {package}", f"pip install 'hggdp_plugin[{extra}]'")


def check_output(path: PathLike, inputs: Sequence[PathLike] = (), overwrite: bool = False) -> None:
    """Check before the work whether an image can be written to a path.

    Args:
        path (path): The image file to write.
        inputs (sequence of path): Files that are read; none of them may be the output.
        overwrite (bool): Whether an existing file may be replaced.

    Raises:
        InputError: If the suffix is unknown, a package is missing, the folder does not exist or is not writable, or
            the file exists or is an input.
    """
    suffix = suffix_of(path)
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            path, f"no image format has the suffix {suffix!r}", f"choose one of {', '.join(IMAGE_SUFFIXES)}"
        )
    if suffix.startswith(".nii"):
        check_package(path, "nibabel", "nifti", "NIfTI files")
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError(path, "its folder does not exist", f"create {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(path, "permission denied to write to its folder", "choose another folder")
    for target in files_of(path):
        if target.is_dir():
            raise InputError(target, "it is a folder", "choose another name")
        if any(target.exists() and Path(i).exists() and target.samefile(i) for i in inputs):
            raise InputError(target, "it is also an input", "choose another output name")
        if target.exists() and not overwrite:
            raise InputError(target, "it exists already", "choose another name, or allow it with --overwrite")


def files_of(path: PathLike) -> tuple[Path, ...]:
    """Return the files that an output consists of: two for BART's cfl, else one."""
    path = Path(path)
    return (path.with_suffix(".hdr"), path) if suffix_of(path) == ".cfl" else (path,)


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Give a temporary path beside a target, and rename what was written there if all went well.

    Args:
        path (path): The target, whose suffix the temporary path keeps.

    Yields:
        Path: Where to write.

    Raises:
        InputError: If the file could not be written; nothing is left behind.
    """
    path = Path(path)
    suffix = path.name[len(path.name) - len(suffix_of(path)) :]
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}{suffix}")
    try:
        yield temporary
        for source, target in zip(files_of(temporary), files_of(path), strict=True):
            with open(source, "rb") as file:  # otherwise a power failure may leave an empty file under the name
                os.fsync(file.fileno())
            os.replace(source, target)
    except OSError as error:  # h5py and nibabel pass on errors of the operating system: disk full, quota, permission
        raise InputError(
            path, f"it could not be written ({error})", "free some space or choose another folder"
        ) from None
    finally:
        for source in files_of(temporary):
            source.unlink(missing_ok=True)
