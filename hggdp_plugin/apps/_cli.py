"""What the commands share: exit codes, the log on the screen, input files, devices."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hggdp_plugin.allocator import keep_freed_memory
from hggdp_plugin.io.files import InputError, check_input, suffix_of
from hggdp_plugin.threads import configure_threads

if TYPE_CHECKING:
    import sigpy as sp

#: Suffixes of files that people give to the wrong command: what they are, and what to do.
FOREIGN_KINDS = {
    ".npz": ("a NumPy archive", "save the array alone, with numpy.save"),
    ".mat": ("a MATLAB file", "save the array as .npy"),
    ".dat": ("raw data of Siemens", "reconstruct it with hggdp recon"),
    ".dcm": ("a DICOM file", "save the complex image as .npy"),
    ".ima": ("a DICOM file", "save the complex image as .npy"),
    ".nii": ("a NIfTI image", "give a .h5, .npy or .cfl file"),
    ".nii.gz": ("a NIfTI image", "give a .h5, .npy or .cfl file"),
    ".png": ("a picture", "give a .h5, .npy or .cfl file"),
    ".jpg": ("a picture", "give a .h5, .npy or .cfl file"),
    ".safetensors": ("a prior", "give it with --prior"),
    ".pth": ("a PyTorch checkpoint", "give it with --prior"),
    ".pt": ("a PyTorch checkpoint", "give it with --prior"),
}

#: NIfTI files, which some commands read.
NIFTI = (".nii", ".nii.gz")

_PACKAGE_LOGGER = logging.getLogger("hggdp_plugin")


def run(
    name: str,
    command: Callable[[Sequence[str] | None], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command with threads, memory and log set up; errors that the user can fix become one line on stderr.

    Any other exception is a bug in the package and keeps its traceback.

    Args:
        name (str): Name of the command as the user typed it, such as ``"recon"``.
        command (function): Takes the arguments and returns an exit code, None meaning 0.
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The exit code of ``command``; 2 for unusable input or a file that cannot be read or written; 130 after
        an interrupt; 1 if the reader of stdout is gone.
    """
    configure_threads()
    keep_freed_memory()
    try:
        with log_on_screen():
            code = command(argv) or 0
        sys.stdout.flush()  # shows here, not at the interpreter's exit, that the reader is gone
        return code
    except BrokenPipeError:
        # The interpreter flushes the rest at exit; let it go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print(f"hggdp {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


@contextmanager
def log_on_screen() -> Iterator[None]:
    """Show the log of the package on the screen while a command runs."""
    handler, level = _ScreenHandler(), _PACKAGE_LOGGER.level
    _PACKAGE_LOGGER.addHandler(handler)
    _PACKAGE_LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _PACKAGE_LOGGER.removeHandler(handler)
        _PACKAGE_LOGGER.setLevel(level)


def set_quiet(quiet: bool, *, stdout_is_free: bool = True) -> None:
    """Choose what the screen shows of the log, for the rest of the command.

    Args:
        quiet (bool): Show only warnings and errors.
        stdout_is_free (bool): Whether information may go to standard output; otherwise it goes to standard error.
    """
    for handler in _PACKAGE_LOGGER.handlers:
        if isinstance(handler, _ScreenHandler):
            handler.setLevel(logging.WARNING if quiet else logging.INFO)
            handler.stdout_is_free = stdout_is_free


@contextmanager
def log_to_file(path: Path | None) -> Iterator[None]:
    """Append the log of the package to a file while a command runs.

    Args:
        path (Path or None): The file; None: no file.

    Raises:
        InputError: The file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(path, f"the log cannot be written ({error})", "choose another file") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _PACKAGE_LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _PACKAGE_LOGGER.removeHandler(handler)
        handler.close()


class _ScreenHandler(logging.Handler):
    """Prints information on stdout, warnings and errors on stderr, without damage to a progress bar."""

    stdout_is_free = True

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        text = f"{record.levelname.lower()}: {record.getMessage()}" if is_warning else record.getMessage()
        with _no_progress_bar():
            print(text, file=sys.stderr if is_warning or not self.stdout_is_free else sys.stdout, flush=True)


def _no_progress_bar() -> AbstractContextManager[None]:
    """Clear progress bars for the moment, if there can be any."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(file=sys.stderr)


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for ``type=`` of an argument."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """Parse a whole number of at least 0, for ``type=`` of an argument."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if (value := int(text)) < least:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least {least}")
    return value


@contextmanager
def refusals(option: object, command: str) -> Iterator[None]:
    """Turn a ValueError into an InputError that names the option at fault.

    Args:
        option (object): The option, such as ``"--prior"``, or the file.
        command (str): The command whose ``--help`` explains it.

    Raises:
        InputError: A ValueError was raised inside.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        problem = str(error).removeprefix("prior ").removeprefix(f"{option}: ")
        raise InputError(option, problem, f"see hggdp {command} --help") from error


def input_file(path: Path, wanted: str, suffixes: Sequence[str] = ()) -> Path:
    """Check an input file, before anything heavy is imported.

    Args:
        path (Path): The file, or the base name of BART's pair of files, as BART takes it.
        wanted (str): What the file must contain, for messages.
        suffixes (sequence of str): Suffixes of :data:`FOREIGN_KINDS` that are fine nevertheless.

    Returns:
        Path: The file; of BART's pair, the .cfl file.

    Raises:
        InputError: There is no such file, or it is of another kind.
    """
    array = Path(f"{path}.cfl")
    if not path.exists() and array.exists():
        return array
    check_input(path)
    suffix = suffix_of(path)
    if suffix in FOREIGN_KINDS and suffix not in suffixes:
        kind, remedy = FOREIGN_KINDS[suffix]
        raise InputError(path, f"it is {kind}, not {wanted}", remedy)
    return path


@contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Refuse to run while another process writes the same output; the lock goes with the process that holds it.

    Args:
        output (Path): The output file. The lock is a hidden file beside it.

    Raises:
        InputError: Another process writes this file.
    """
    if os.name != "posix":
        yield
        return
    lock = output.with_name(f".{output.name}.lock")
    with _locked(lock, output):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(lock: Path, output: Path) -> TextIO:
    """Return the lock file of an output, open and locked."""
    import fcntl

    while True:
        file = open(lock, "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            problem = "another run is writing this file"
            raise InputError(output, problem, "wait until it ends, or choose another name") from None
        except OSError:  # a network drive without locks
            return file
        # A run that ended since the file was opened has removed it: then others would lock another one of this name.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        file.close()


def find_device(gpu: int | None) -> "sp.Device":
    """Return the CPU, or a GPU by its number.

    Args:
        gpu (int or None): Number of the GPU; None: the CPU.

    Returns:
        Device: SigPy device.

    Raises:
        InputError: There is no such GPU, or no CuPy to use it with.
    """
    import sigpy as sp

    if gpu is None:
        return sp.cpu_device
    if find_spec("cupy") is None:
        raise InputError("--gpu", "a GPU needs the package cupy", "pip install 'hggdp_plugin[gpu]'")
    import torch

    if not torch.cuda.is_available() or not 0 <= gpu < torch.cuda.device_count():
        raise InputError(f"--gpu {gpu}", "PyTorch sees no such GPU", "run without --gpu, or check the driver")
    return sp.Device(gpu)
