"""What the benchmarks share: the machine's name, the data folder, tables and JSON."""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from hggdp_plugin.checkpoint import PRIORS


def parser(description: str | None, prior: bool = True) -> argparse.ArgumentParser:
    """The options that every benchmark on measured data has; ``prior``: with the one to measure."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("HGGDP_DATA", "../shared/data")),
        help="folder of the measured data (default: $HGGDP_DATA or ../shared/data)",
    )
    if prior:
        p.add_argument("--prior", help="prior to measure (default: the bundled one)")
    p.add_argument("--json", type=Path, help="file to write the figures to")
    return p


def need(path: Path) -> Path:
    """A data file, or the end of the program with a line that says what is missing."""
    if not path.exists():
        raise SystemExit(f"{path}: not there; name the folder of the measured data with --data or HGGDP_DATA")
    return path


def machine(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Processor, cores and software that the times hold for."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None,
        "torch": torch.__version__,
    }


def peak_memory(*command: str) -> tuple[float, float, str]:
    """Peak memory [MiB], seconds and output of a Python command; the peak is at least that of this process.

    A process starts with the peak of the one that starts it, so that this one should not have needed much itself.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - start, output


def elsewhere(function: Callable[..., None], *args: Any) -> None:
    """Call a function in a process of its own, so that its memory is not this one's."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__}: failed")


def in_parallel(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int = 1, minutes: float | None = None
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Arguments and results of a function's calls, as they finish, in processes of one thread each.

    After ``minutes`` nothing more is started.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    todo = iter(tasks)
    running: dict[Any, tuple[Any, ...]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        while True:
            while len(running) < workers and time.monotonic() < end and (task := next(todo, None)) is not None:
                running[pool.submit(function, *task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _one_thread() -> None:
    torch.set_num_threads(1)
    if find_spec("bartorch"):
        import bartorch

        bartorch.set_num_threads(1)


class Rows:
    """Figures of problems by method, kept in a JSON file after every change, so that a run can be continued."""

    def __init__(self, path: Path | None, description: dict[str, Any]) -> None:
        self.path, self.description = path, description
        self.rows: dict[str, dict[str, Any]] = {}
        if path and path.exists():
            stored = json.loads(path.read_text())
            self.rows, self.description = stored["rows"], {**stored, **description}
            del self.description["rows"]

    def has(self, row: str, method: str) -> bool:
        """Whether a method's figures of a problem are there."""
        return method in self.rows.get(row, {})

    def priors(self, names: Sequence[str], suffix: str = "") -> dict[str, str]:
        """Priors, names or files, by their label; figures of an earlier one of the same label are dropped."""
        known = self.description.setdefault("priors", {})
        labels = {Path(name).stem + suffix: name for name in names}
        for label, name in labels.items():
            digest = fingerprint(name)
            if known.get(label, digest) != digest:
                for row in self.rows.values():
                    row.pop(label, None)
            known[label] = digest
        return labels

    def add(self, row: str, method: str, figures: Any) -> None:
        """Add figures, and write all of them."""
        self.rows.setdefault(row, {})[method] = figures
        self.write()

    def table(self, name: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> None:
        """Print a table as the documentation shows it, and keep its cells."""
        print()
        print_table(columns, rows, name)
        cells = {row: dict(zip(columns, map(cell, values), strict=True)) for row, values in rows.items()}
        self.description.setdefault("tables", {})[name] = cells
        self.write()

    def write(self) -> None:
        """Write everything, if there is a file."""
        if self.path:
            head = json.dumps({**self.description, "rows": None}, indent=1).removesuffix("null\n}")
            lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(self.rows.items()))
            temporary = self.path.with_suffix(".part")
            temporary.write_text(f"{head}{{\n{lines}\n }}\n}}\n")
            temporary.replace(self.path)


def fingerprint(prior: str) -> str:
    """The first digits of the SHA-256 of a prior's file."""
    bundled = PRIORS / f"{prior}.safetensors"
    return hashlib.sha256((bundled if bundled.exists() else need(Path(prior))).read_bytes()).hexdigest()[:12]


def has_bart() -> bool:
    """Whether BART is there: the wheel ``bartorch``, or the command line tool."""
    return bool(find_spec("bartorch") or shutil.which("bart"))


def run_bart(command: str, folder: Path) -> None:
    """Run a BART command in a folder; with the wheel in this process, so that its start is not in its time."""
    if not find_spec("bartorch"):
        subprocess.run(["bart", *command.split()], cwd=folder, check=True, capture_output=True)
        return
    from bartorch._dispatch import run_command  # the commands themselves: the wheel's own apps replace some of them

    here = os.getcwd()
    os.chdir(folder)
    try:
        code, _, failure = run_command(command.split())
    finally:
        os.chdir(here)
    if code:
        raise SystemExit(f"bart {command}: {failure}")


def siat_images(path: Path, which: slice = slice(None)) -> np.ndarray:
    """Complex images (slices, H, W) of a file with the dataset ``image`` (slices, 2, H, W) of integers."""
    with h5py.File(need(path), "r") as file:
        data = file["image"][which].astype(np.float32) * np.float32(file["image"].attrs["step"])
    return (data[:, 0] + 1j * data[:, 1]).astype(np.complex64)


def cell(value: Any) -> str:
    """A number with two decimals, anything else as it is."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def print_table(columns: Sequence[str], rows: Mapping[str, Sequence[Any]], corner: str = "") -> None:
    """Print a Markdown table; numbers with two decimals."""
    print(f"| {corner} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(map(cell, values))} |", flush=True)


def report(args: argparse.Namespace, figures: dict[str, Any], device: str | torch.device = "cpu") -> None:
    """Print the machine's line, and write the figures with it if asked to."""
    described = {"machine": machine(device), **figures}
    print("\n" + ", ".join(f"{k}: {v}" for k, v in described["machine"].items() if v is not None))
    if args.json:
        args.json.write_text(json.dumps(described, indent=1) + "\n")
