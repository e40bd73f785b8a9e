"""Time and memory of ``hggdp recon`` against slices, coils, matrix and undersampling, one at a time.

A head phantom of 8 slices, 8 coils, 256 x 256, a quarter of the lines, where nothing else is said; five noise levels
instead of 25, so that what is not the network shows. Each in a process of its own; "+ N" compresses to N virtual coils.
Seconds are those of reading, maps and reconstruction, without the imports. Exponents: seconds grow as the axis to this
power, between its ends; linear is 1, for the matrix 2.

    python benchmarks/scaling.py --json scaling.json

With ``--axes`` only some are measured; the others stay in the JSON file.
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

BASE = {"slices": 8, "coils": 8, "matrix": 256, "undersampling": 4}
AXES = {
    "slices": ["4", "8", "16", "32"],
    "coils": ["4", "8", "16", "32", "64", "32 + 8", "64 + 8"],
    "matrix": ["128", "192", "256", "384", "512"],
    "undersampling": ["2", "4", "8"],
}
LEVELS = 5


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


def measure(axis: str, value: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory (GiB) of a command."""
    number, _, virtual = value.partition(" + ")
    at = BASE | {axis: int(number)}
    raw = folder / "raw.h5"
    elsewhere(write_volume, raw, at["slices"], at["coils"], at["matrix"], at["undersampling"], 24, True)
    command = ["-m", "hggdp_plugin.apps", "recon", str(raw), "-o", str(folder / "out.npy"), "-N", str(LEVELS), "-q"]
    command += ["--overwrite", *(["--coils", virtual] if virtual else [])]
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{axis} {value}: failed")
    seconds = json.loads((folder / "out.npy.json").read_text())["seconds"]
    return {"seconds": sum(seconds.values()), "peak memory (GiB)": usage.ru_maxrss / 2**20}


def exponent(rows: dict[str, dict[str, float]]) -> float:
    """Power between the first and the last value without compression."""
    plain = [value for value in rows if "+" not in value]
    first, last = plain[0], plain[-1]
    return math.log(rows[last]["seconds"] / rows[first]["seconds"]) / math.log(int(last) / int(first))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    stored = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    figures: dict[str, Any] = {"base": BASE, "levels": LEVELS}
    figures |= {axis: stored[axis] for axis in AXES if axis in stored}
    with tempfile.TemporaryDirectory() as folder:
        for axis in args.axes:
            figures[axis] = {value: measure(axis, value, Path(folder)) for value in AXES[axis]}
            print(f"\n{axis}: exponent {exponent(figures[axis]):.2f}\n")
            print_table(["seconds", "peak memory (GiB)"], {v: list(row.values()) for v, row in figures[axis].items()})
    figures["exponents"] = {axis: exponent(figures[axis]) for axis in AXES if axis in figures}
    report(args, figures)


if __name__ == "__main__":
    main()
