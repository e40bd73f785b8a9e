"""A measured 8-coil brain, undersampled four ways: ours beside zero-filled, SENSE, SigPy's and BART's L1-wavelet.

The brain (T1, another scanner, contrast and matrix than the prior's training data) goes through ``hggdp simulate`` and
the raw data reader; all methods get the same k-space and the same ESPIRiT maps. PSNR of the magnitude, peak 1, after
the best scale. SigPy and BART get the best of three regularization weights, ours one setting for all.

    python benchmarks/multicoil.py --json multicoil.json
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import has_bart, need, parser, print_table, report, run_bart

from hggdp_plugin import io
from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.apps.simulate import main as simulate
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.metrics import score
from hggdp_plugin.prior import load_prior
from hggdp_plugin.volume.calibration import estimate_maps

SAMPLINGS = {
    "Poisson disc R=6": "--mask poisson --accel 6 --calib 24",
    "Poisson disc R=10": "--mask poisson --accel 10 --calib 24",
    "Cartesian random lines R=4": "--mask random --accel 4 --calib 24",
    "radial, 40 spokes": "--mask radial --spokes 40",
}
LAMBDAS = (1e-3, 3e-3, 1e-2)


def bart(folder: Path, command: str, **arrays: np.ndarray) -> np.ndarray:
    """Run a BART command on arrays (C order: the reverse of BART's dimensions) and return its output."""
    for name, array in arrays.items():
        write_cfl(folder / f"{name}.cfl", array.astype(np.complex64))
    run_bart(command, folder)
    return read_cfl(folder / "out.cfl").squeeze()


def bart_wavelet(ksp: np.ndarray, mps: np.ndarray, coord: np.ndarray | None, folder: Path, lamda: float) -> np.ndarray:
    """BART's L1-wavelet reconstruction, 100 iterations."""
    # -e: FISTA with its default step size diverges on radial samples.
    pics = f"pics -S {'' if coord is None else '-e '}-i 100 -R W:3:0:{lamda}"
    if coord is None:
        return bart(folder, f"{pics} ksp mps out", ksp=ksp[:, None], mps=mps[:, None])
    # Trajectory (kx, ky, kz) for (1, samples, shots) samples in BART's order.
    traj = np.stack([coord[..., 1], coord[..., 0], np.zeros_like(coord[..., 0])], axis=-1)
    return bart(folder, f"{pics} -t traj ksp mps out", ksp=ksp[..., None], mps=mps[:, None], traj=traj)


def zero_filled(ksp: np.ndarray, mps: np.ndarray, coord: np.ndarray | None) -> np.ndarray:
    """Adjoint; for radial samples with the ramp as density compensation."""
    weights = None if coord is None else np.linalg.norm(coord, axis=-1).astype(np.float32) + 0.25
    A = mr.linop.Sense(mps, coord=coord)
    return A.H(ksp if weights is None else ksp * weights)


def methods(ksp: np.ndarray, mps: np.ndarray, coord: np.ndarray | None, prior: Any, folder: Path) -> dict[str, Any]:
    """Reconstructions to compare, each a function; several of one name compete for the best."""
    quiet: dict[str, Any] = {"coord": coord, "show_pbar": False}
    todo: dict[str, Any] = {
        "zero-filled": [lambda: zero_filled(ksp, mps, coord)],
        "SENSE (SigPy)": [lambda: mr.app.SenseRecon(ksp, mps, lamda=0.01, max_iter=30, **quiet).run()],
        "L1-wavelet (SigPy), best of 3": [
            lambda weight=weight: mr.app.L1WaveletRecon(
                ksp, mps, weight * float(np.abs(mr.linop.Sense(mps, coord=coord).H(ksp)).max()), max_iter=100, **quiet
            ).run()
            for weight in LAMBDAS
        ],
    }
    if has_bart():
        todo["L1-wavelet (BART), best of 3"] = [
            lambda weight=weight: bart_wavelet(ksp, mps, coord, folder, weight) for weight in LAMBDAS
        ]
    todo["HGGDPRecon"] = [lambda: HGGDPRecon(ksp, mps, prior=prior, **quiet).run()]
    return todo


def measure(name: str, options: str, brain: Path, prior: Any) -> dict[str, list[float]]:
    """PSNR, SSIM, HFEN and seconds of every method at one sampling."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if simulate([str(brain), "-o", str(folder / "raw.h5"), *options.split()]):
            raise SystemExit(1)
        raw = io.read_raw(folder / "raw.h5")
        with h5py.File(folder / "raw.h5") as file:
            reference = file["reference/image"][0]
        mps = estimate_maps(raw)[0]
        ksp, coord = raw.ksp[0, 0, 0, 0, 0], raw.coord
        rows: dict[str, list[float]] = {}
        for method, functions in methods(ksp, mps, coord, prior, folder).items():
            candidates = []
            for function in functions:
                start = time.perf_counter()
                image = sp.resize(function(), reference.shape)
                seconds = time.perf_counter() - start
                scores = score(image, reference)
                candidates.append([scores.psnr, scores.ssim, scores.hfen, seconds])
            rows[method] = max(candidates)
    print(f"\n{name}\n")
    print_table(["PSNR (dB)", "SSIM", "HFEN", "seconds"], rows)
    return rows


def main() -> None:
    p = parser(__doc__)
    args = p.parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    brain = need(args.data / "brain8ch_full.npy")
    report(args, {"samplings": {name: measure(name, options, brain, prior) for name, options in SAMPLINGS.items()}})


if __name__ == "__main__":
    main()
