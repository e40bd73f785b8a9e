"""Raw data of every convention at hand, reconstructed as ``hggdp recon`` does and scored against their references.

A measured 8-coil brain goes through ``hggdp simulate`` in all the ways that it knows; where there are several slices,
the second is its mirror image. The ISMRMRD project's own generator (ismrmrd_generate_cartesian_shepp_logan, of Debian's
ismrmrd-tools) and BART's (bart phantom) make a phantom each where they are installed. PSNR of the magnitude, peak 1,
mean over the slices. Sampled: share of the k-space positions that are not zero, oversampling removed; of spokes, their
number over that of the image's lines. Seconds: reading, maps and reconstruction.

    python benchmarks/rawdata.py --json rawdata.json
    python benchmarks/rawdata.py --lines 100000         # only how long reading takes: 256 samples, 8 coils

The second form needs 2 GB of disk in TMPDIR and 6 GB of memory, most of them to write the file.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from common import elsewhere, has_bart, need, parser, peak_memory, print_table, report, run_bart
from multicoil import zero_filled

from hggdp_plugin import io
from hggdp_plugin.apps.simulate import main as simulate
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.io.cfl import read_cfl
from hggdp_plugin.metrics import Scores, mean_scores, score_slices
from hggdp_plugin.prior import load_prior
from hggdp_plugin.simulation import REFERENCE, SimulatedScan, write_raw
from hggdp_plugin.volume.calibration import estimate_maps
from hggdp_plugin.volume.reconstruct import reconstruct

#: Rows of the table: slices, and options of ``hggdp simulate``.
SIMULATED = {
    "Cartesian, readout oversampled": (1, "--mask random --accel 3 --oversampling 2"),
    "partial Fourier 5/8": (1, "--mask uniform --accel 2 --partial-fourier 0.625"),
    "asymmetric echo 3/4": (1, "--mask random --accel 3 --asymmetric-echo 0.75 --oversampling 2"),
    "radial, cycles per pixel": (1, "--mask radial --spokes 60"),
    "radial, cycles per field of view": (1, "--mask radial --spokes 60 --trajectory-unit fov"),
    "3D, Poisson disc": (2, "--mask poisson --accel 6 --volume --oversampling 2"),
    "2 slices, noise scan": (2, "--mask random --accel 3 --snr 30 --noise-scan"),
}
COLUMNS = ["2D problems", "coils", "sampled", "zero-filled PSNR (dB)", "PSNR (dB)", "SSIM", "seconds"]
#: How to read a file, and its reference (z, y, x).
Case = tuple[Callable[[], io.RawData], np.ndarray]


def simulated(brain: np.ndarray, options: str, path: Path) -> Case:
    """The brain's slices through ``hggdp simulate``."""
    source = path.with_name("kspace.npy")
    np.save(source, brain)
    if simulate([str(source), "-o", str(path), "--overwrite", *options.split()]):
        raise SystemExit(1)
    with h5py.File(path) as file:
        return partial(io.read_raw, path), file[REFERENCE][()]


def ismrmrd_generator(folder: Path) -> Case:
    """The ISMRMRD project's example: Shepp-Logan, 8 coils, oversampled, noise scan; two frames of every second line."""
    path = folder / "ismrmrd.h5"
    command = ["ismrmrd_generate_cartesian_shepp_logan", "-a", "2", "-w", "24", "-C", "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with h5py.File(path) as file:
        phantom, maps = (file[f"dataset/{name}"][()].view(np.complex64) for name in ("phantom", "csm"))
    return partial(io.read_raw, path), phantom * np.linalg.norm(maps, axis=1)


def bart_generator(folder: Path) -> Case:
    """BART's phantom with 8 coils and noise, every third line and the center."""
    for command in (
        "phantom -x 256 -s 8 -k full",
        "fft -u -i 3 full coils",
        "rss 8 coils image",
        "noise -n 100 full noisy",
        "upat -Y 256 -Z 1 -y 3 -c 24 mask",
        "fmac noisy mask ksp",
    ):
        run_bart(command, folder)
    return partial(io.read_kspace, folder / "ksp.cfl"), read_cfl(folder / "image.cfl").reshape(1, 256, 256)


def measure(make: Callable[[], Case], prior: Any) -> list[Any]:
    """One row of the table."""
    read, reference = make()
    start = time.perf_counter()
    raw = read()
    mps = estimate_maps(raw)
    ours = reconstruct(raw, mps, prior=prior, show_pbar=False)
    seconds = time.perf_counter() - start
    zero = np.stack(
        [zero_filled(y, m, raw.coord) for frame in raw.ksp for y, m in zip(frame[0, 0, 0], mps, strict=True)]
    )
    scores = [
        mean_scores(score_planes(image, reference, raw))
        for image in (raw.to_image(zero.reshape(raw.ksp.shape[:5] + raw.grid)), ours)
    ]
    share = raw.ksp.any(axis=5).mean() if raw.coord is None else len(raw.coord) / raw.grid[0]
    counts = [len(zero), raw.ksp.shape[5]]
    return [*counts, f"{100 * share:.0f} %", scores[0].psnr, scores[1].psnr, scores[1].ssim, seconds]


def score_planes(image: np.ndarray, reference: np.ndarray, raw: io.RawData) -> list[Scores]:
    """Scores of all repetitions of (z, y, x), plane by plane as reconstructed: in 3D those across the readout."""
    axis = -1 if raw.is_3d else -3
    return [
        one
        for frame in image[:, 0, 0, 0]
        for one in score_slices(np.moveaxis(frame, axis, 0), np.moveaxis(reference, axis, 0))
    ]


def write_lines(path: Path, slices: int, coils: int = 8, rows: int = 250, samples: int = 256) -> None:
    """A file of many lines, 4 MiB a slice."""
    data = np.ones((slices, coils, rows, samples), np.complex64)
    matrix = (rows, samples)
    lines = SimulatedScan(data, np.arange(rows), rows // 2, samples // 2, np.zeros(rows, bool), matrix, matrix)
    write_raw(path, lines, np.zeros((slices, *matrix), np.complex64), {})


def read_lines(count: int, path: Path) -> None:
    """Print how long reading many lines takes, and the most memory that it needs."""
    slices = -(-count // 250)
    elsewhere(write_lines, path, slices)
    code = (
        "import sys, time; from hggdp_plugin import io\n"
        "start = time.perf_counter(); raw = io.read_raw(sys.argv[1])\n"
        "print(time.perf_counter() - start, raw.ksp.nbytes)"
    )
    memory, _, output = peak_memory("-c", code, str(path))
    seconds, size = map(float, output.split())
    print(f"{slices * 250} lines, {size / 2**20:.0f} MiB: read in {seconds:.1f} s, {memory:.0f} MiB at most")


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--lines", type=int, metavar="N", help="only show how long reading N lines takes")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if args.lines:
            return read_lines(args.lines, folder / "lines.h5")
        prior = load_prior(args.prior or DEFAULT_PRIOR)
        brain = np.load(need(args.data / "brain8ch_full.npy"))
        slices = np.stack([brain, brain[..., ::-1]])
        cases: dict[str, Callable[[], Case]] = {
            name: partial(simulated, slices[:number], options, folder / "raw.h5")
            for name, (number, options) in SIMULATED.items()
        }
        if shutil.which("ismrmrd_generate_cartesian_shepp_logan"):
            cases["ISMRMRD's generator"] = partial(ismrmrd_generator, folder)
        if has_bart():
            cases["BART's generator"] = partial(bart_generator, folder)
        rows = {}
        for name, make in cases.items():
            rows[name] = measure(make, prior)
            print(f"{name}: {rows[name][-1]:.1f} s", flush=True)
    print_table(COLUMNS, rows)
    report(args, {"columns": COLUMNS, "files": rows})


if __name__ == "__main__":
    main()
