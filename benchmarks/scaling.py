"""CPU seconds and memory of ``hggdp recon`` against slices, coils, matrix and undersampling, one at a time.

A head phantom of 4 slices, 8 coils, 256 x 256, a quarter of the lines, where nothing else is said; three noise levels
instead of 25, so that what is not the network shows. Each in a process of its own; "+ N" compresses to N virtual coils.
CPU seconds, without those of the imports, hardly depend on what else runs. Exponents: they grow as the axis to this
power, between its ends; linear is 1, for the matrix 2.

    python benchmarks/scaling.py --json scaling.json

What the JSON file has is not measured again.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
from common import elsewhere, print_table, report
from memory import write_volume

from hggdp_plugin.simulation import coil_maps, head_phantom, masks

BASE = {"slices": 4, "coils": 8, "matrix": 256, "undersampling": 4}
AXES = {
    "slices": ["4", "8", "16"],
    "coils": ["4", "8", "16", "32", "64", "64 + 8"],
    "matrix": ["128", "256", "512"],
    "undersampling": ["2", "4", "8"],
}
LEVELS = 3
IMPORTS = "import hggdp_plugin.apps._recon_job"


def phantom(coils: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """k-space of one slice, a quarter of the lines, noise of a hundredth of the maximum; and its maps."""
    image, mps, rng = (
        head_phantom((size, size), num_slices=1)[0],
        coil_maps(coils, (size, size)),
        np.random.default_rng(0),
    )
    noise = rng.standard_normal((2, coils, size, size)) * abs(image).max() / 100 / 2**0.5
    ksp = sp.fft(mps * image, axes=(-2, -1)) + noise[0] + 1j * noise[1]
    return (ksp * masks.random_lines(size, 4, 24)[:, None]).astype(np.complex64), mps


def cpu_seconds(*command: str) -> tuple[float, float]:
    """CPU seconds and peak memory (GiB) of a Python command."""
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def measure(axis: str, value: str, folder: Path) -> dict[str, float]:
    """CPU seconds and peak memory (GiB) of a command."""
    number, _, virtual = value.partition(" + ")
    at = BASE | {axis: int(number)}
    raw = folder / "raw.h5"
    elsewhere(write_volume, raw, at["slices"], at["coils"], at["matrix"], at["undersampling"], 24, True)
    command = ["-m", "hggdp_plugin.apps", "recon", str(raw), "-o", str(folder / "out.npy"), "-N", str(LEVELS), "-q"]
    command += ["--overwrite", *(["--coils", virtual] if virtual else [])]
    seconds, memory = cpu_seconds(*command)
    return {"CPU seconds": seconds - cpu_seconds("-c", IMPORTS)[0], "peak memory (GiB)": memory}


def exponent(rows: dict[str, dict[str, float]]) -> float:
    """Power between the first and the last value without compression."""
    plain = [value for value in rows if "+" not in value]
    first, last = plain[0], plain[-1]
    return math.log(rows[last]["CPU seconds"] / rows[first]["CPU seconds"]) / math.log(int(last) / int(first))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    figures: dict[str, Any] = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    figures |= {"base": BASE, "levels": LEVELS}
    with tempfile.TemporaryDirectory() as folder:
        for axis, values in AXES.items():
            rows = figures.setdefault(axis, {})
            for value in values:
                if value not in rows:
                    rows[value] = measure(axis, value, Path(folder))
                    if args.json:
                        args.json.write_text(json.dumps(figures))
            print(f"\n{axis}: exponent {exponent(rows):.2f}\n")
            print_table(["CPU seconds", "peak memory (GiB)"], {v: list(row.values()) for v, row in rows.items()})
    figures["exponents"] = {axis: exponent(figures[axis]) for axis in AXES}
    figures.pop("machine", None)
    report(args, figures)


if __name__ == "__main__":
    main()
