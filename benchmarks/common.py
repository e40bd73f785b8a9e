"""What the benchmarks share: the machine's name, the data folder, tables and JSON."""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch


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


def siat_images(path: Path, which: slice = slice(None)) -> np.ndarray:
    """Complex images (slices, H, W) of a file with the dataset ``image`` (slices, 2, H, W) of integers."""
    with h5py.File(need(path), "r") as file:
        data = file["image"][which].astype(np.float32) * np.float32(file["image"].attrs["step"])
    return (data[:, 0] + 1j * data[:, 1]).astype(np.complex64)


def print_table(columns: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> None:
    """Print a Markdown table; numbers with two decimals."""
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, values in rows.items():
        cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in values]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def report(args: argparse.Namespace, figures: dict[str, Any], device: str | torch.device = "cpu") -> None:
    """Print the machine's line, and write the figures with it if asked to."""
    described = {"machine": machine(device), **figures}
    print("\n" + ", ".join(f"{k}: {v}" for k, v in described["machine"].items() if v is not None))
    if args.json:
        args.json.write_text(json.dumps(described, indent=1) + "\n")
