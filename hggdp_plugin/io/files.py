"""Files in and out: refused in one clear line, written beside the target and renamed when complete."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time it would load NumPy, before the commands have set its threads
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
IMAGE_SUFFIXES = (".h5", ".nii", ".nii.gz", ".npy", ".cfl", ".png", ".dcm")
#: What stands for the suffix of a folder of DICOM images, whose name is given with a slash at its end.
FOLDER = "/"


def suffix_of(path: "PathLike") -> str:
    """Return the suffix that names the format of a file, in lower case; ``.nii.gz`` is one suffix.

    Args:
        path (path): The file, or with a slash at its end a folder.

    Returns:
        str: The suffix, or :data:`FOLDER`.
    """
    if os.fspath(path).endswith(("/", os.sep)):
        return FOLDER
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def std_path(path: "PathLike") -> str:
    """Return where the standard error of an image is written: ``NAME_std.nii.gz``; the same MRD file.

    Args:
        path (path): The image file, or with a slash at its end the folder of DICOM images.
    """
    suffix, path = suffix_of(path), os.fspath(path)
    if suffix == ".h5":
        return path
    stem = path.rstrip(f"{FOLDER}{os.sep}") if suffix == FOLDER else path[: len(path) - len(suffix)]
    return f"{stem}_std{path[len(path) - len(suffix) :]}"


def check_input(path: "PathLike") -> None:
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


def check_package(path: "PathLike", package: str, extra: str, kind: str) -> None:
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


def check_output(path: "PathLike", inputs: Sequence["PathLike"] = (), overwrite: bool = False) -> None:
    """Check before the work whether an image can be written to a path.

    Args:
        path (path): The image file to write, or with a slash at its end the folder of DICOM images.
        inputs (sequence of path): Files that are read; none of them may be the output.
        overwrite (bool): Whether an existing file may be replaced.

    Raises:
        InputError: If the suffix is unknown, a package is missing, the folder does not exist or is not writable, or
            the file exists or is an input.
    """
    suffix = suffix_of(path)
    if suffix not in (*IMAGE_SUFFIXES, FOLDER):
        known = ", ".join(IMAGE_SUFFIXES)
        raise InputError(
            path, f"no image format has the suffix {suffix!r}", f"choose one of {known}, or a folder for DICOM (NAME/)"
        )
    if suffix.startswith(".nii"):
        check_package(path, "nibabel", "nifti", "NIfTI files")
    if suffix in (".dcm", FOLDER):
        check_package(path, "pydicom", "dicom", "DICOM files")
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError(path, "its folder does not exist", f"create {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(path, "permission denied to write to its folder", "choose another folder")
    if suffix == FOLDER:
        _check_folder(Path(path), overwrite)
        return
    for target in files_of(path):
        if target.is_dir():
            raise InputError(target, "it is a folder", "choose another name")
        if any(target.exists() and Path(i).exists() and target.samefile(i) for i in inputs):
            raise InputError(target, "it is also an input", "choose another output name")
        if target.exists() and not overwrite:
            raise InputError(target, "it exists already", "choose another name, or allow it with --overwrite")


def check_std_output(path: "PathLike", inputs: Sequence["PathLike"] = (), overwrite: bool = False) -> None:
    """Check before the work whether the standard error of an image can be written beside it.

    Args:
        path (path): The image file, or with a slash at its end the folder of DICOM images.
        inputs (sequence of path): Files that are read; none of them may be the output.
        overwrite (bool): Whether an existing file may be replaced.

    Raises:
        InputError: As :func:`check_output`.
    """
    if suffix_of(path) in (".dcm", FOLDER):
        check_package(path, "highdicom", "dicom", "DICOM maps of the standard error")
    check_output(std_path(path), inputs, overwrite)


def _check_folder(path: Path, overwrite: bool) -> None:
    """Refuse to write a folder of DICOM images in place of anything else."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(path, "it is a file", "choose another name for the folder")
    content = list(path.iterdir())
    if any(p.suffix.lower() != ".dcm" or not p.is_file() for p in content):
        raise InputError(path, "the folder holds other files than DICOM images", "choose another name")
    if content and not overwrite:
        raise InputError(path, "it exists already", "choose another name, or allow it with --overwrite")


def files_of(path: "PathLike") -> tuple[Path, ...]:
    """Return the files that an output consists of: two for BART's cfl, else one."""
    path = Path(path)
    return (path.with_suffix(".hdr"), path) if suffix_of(path) == ".cfl" else (path,)


@contextmanager
def replacing(path: "PathLike") -> Iterator[Path]:
    """Give a temporary path beside a target, and rename what was written there if all went well.

    Args:
        path (path): The target, whose suffix the temporary path keeps. With a slash at its end it is a folder, and the
            temporary path an empty one.

    Yields:
        Path: Where to write.

    Raises:
        InputError: If the file could not be written; nothing is left behind.
    """
    is_folder, path = suffix_of(path) == FOLDER, Path(path)
    suffix = "" if is_folder else path.name[len(path.name) - len(suffix_of(path)) :]
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}{suffix}")
    try:
        if is_folder:
            temporary.mkdir()
        yield temporary
        if is_folder:
            _replace_folder(temporary, path)
        else:
            for source, target in zip(files_of(temporary), files_of(path), strict=True):
                _sync(source)
                os.replace(source, target)
    except OSError as error:  # h5py and nibabel pass on errors of the operating system: disk full, quota, permission
        raise InputError(
            path, f"it could not be written ({error})", "free some space or choose another folder"
        ) from None
    finally:
        if is_folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            for source in files_of(temporary):
                source.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Write a file to the disk: otherwise a power failure may leave an empty file under the name."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _replace_folder(source: Path, target: Path) -> None:
    """Rename a folder of DICOM images, in place of one of an earlier run."""
    for file in source.iterdir():
        _sync(file)
    _check_folder(target, overwrite=True)
    if target.exists():
        shutil.rmtree(target)
    os.replace(source, target)
