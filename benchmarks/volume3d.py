"""A volume off the Cartesian grid (kooshball) scored against its truth, beside SigPy and BART, and its memory.

A head phantom of 40 x 40 x 40 voxels and 8 coils with noise, a sixth of the spokes that the Nyquist criterion asks for,
and the maps that it was simulated with. The L1-wavelet methods have the best of three weights by the truth. With
``--axial`` also our method with the slices of one axis alone. Then the peak memory of 128 x 128 x 128 voxels with 8
coils, with two noise levels and few iterations: memory does not depend on their number, time does.

    python benchmarks/volume3d.py --json benchmarks/results/volume3d.json
"""

import argparse
import sys
import time
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import parser, peak_memory, print_table, report

from hggdp_plugin import HGGDPRecon, NoiseSchedule
from hggdp_plugin.linops import Sense, slice_stacks
from hggdp_plugin.metrics import score
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import kooshball_trajectory

Scan = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

#: Weights of L1-wavelets, relative to the noise.
WEIGHTS = (0.01, 0.03, 0.1)


def simulate(size: int, coils: int, spokes: int, noise: float) -> Scan:
    """The volume, its k-space, the maps and the coordinates."""
    truth = head_phantom((size, size), num_slices=min(size, 48), seed=1)
    truth = sp.resize(truth, (size, size, size))
    mps = mr.birdcage_maps((coils, *truth.shape)).astype(np.complex64)
    mps /= np.linalg.norm(mps, axis=0)
    coord = size * kooshball_trajectory(spokes, 2 * size)
    y = Sense(mps, coord=coord, coil_batch_size=2)(truth)
    return truth, y + noise * complex_normal(np.random.default_rng(0), y.shape), mps, coord


def gridded(y: np.ndarray, mps: np.ndarray, coord: np.ndarray) -> np.ndarray:
    """The adjoint with density compensation."""
    density = (np.linalg.norm(coord, axis=-1) ** 2 + 0.1).astype(np.float32)
    return Sense(mps, coord=coord, coil_batch_size=2).H(y * density)


def sigpy_sense(y: np.ndarray, mps: np.ndarray, coord: np.ndarray) -> np.ndarray:
    """Least squares, stopped early."""
    A = Sense(mps, coord=coord)
    return sp.app.LinearLeastSquares(A, y, lamda=0.01, max_iter=15, show_pbar=False).run()


def bart_wavelet(y: np.ndarray, mps: np.ndarray, coord: np.ndarray, weight: float) -> np.ndarray:
    """``pics -e -R W:7:0:weight -i 150``."""
    import torch
    from bartorch import apps, priors

    regularizer, traj = priors.Wavelet((-1, -2, -3), weight), np.ascontiguousarray(coord[..., ::-1])
    arrays = [torch.from_numpy(np.ascontiguousarray(array)) for array in (y, mps)]
    options = {"maxiter": 150, "traj": torch.from_numpy(traj), "eigen_step": True}
    return apps.pics(*arrays, regularizers=regularizer, **options).numpy().squeeze()


def scores(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of a volume, with one scale."""
    result = score(image.reshape(-1, image.shape[-1]), truth.reshape(-1, truth.shape[-1]))
    return {"PSNR (dB)": result.psnr, "SSIM": result.ssim}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Scores and seconds of all methods."""
    truth, *scan = simulate(args.size, args.coils, args.spokes, args.noise)

    def ours() -> np.ndarray:
        options = {"prior": args.prior} if args.prior else {}
        return HGGDPRecon(scan[0], scan[1], coord=scan[2], show_pbar=False, **options).run()

    def best_wavelet() -> np.ndarray:
        images = [bart_wavelet(*scan, weight * args.noise) for weight in WEIGHTS]
        return max(images, key=lambda image: scores(image, truth)["PSNR (dB)"])

    def axial() -> np.ndarray:
        with patch("hggdp_plugin.sampling.slice_stacks", lambda shape: slice_stacks(shape)[:1]):
            return ours()

    methods = {"gridded": lambda: gridded(*scan), "least squares (SigPy)": lambda: sigpy_sense(*scan)}
    if find_spec("bartorch"):
        methods["L1-wavelet (BART pics)"] = best_wavelet
    methods["HGGDPRecon"] = ours
    if args.axial:
        methods["HGGDPRecon, slices of one axis"] = axial
    figures: dict[str, Any] = {}
    for name, method in methods.items():
        start = time.process_time()
        image = method()
        seconds = (time.process_time() - start) / (len(WEIGHTS) if "wavelet" in name else 1)
        figures[name] = {**scores(image, truth), "CPU seconds": seconds}
        print_table(list(figures[name]), {name: list(figures[name].values())})
    return figures


def reconstruct(size: int, coils: int, spokes: int) -> None:
    """The run whose memory is measured: random samples, for what is measured does not depend on them."""
    rng = np.random.default_rng(0)
    coord = size * kooshball_trajectory(spokes, 2 * size)
    y = complex_normal(rng, (coils, *coord.shape[:-1]))
    mps = np.full((coils, size, size, size), coils**-0.5, np.complex64)
    with patch("hggdp_plugin.problem.LEAST_SQUARES_ITERATIONS", 2):
        image = HGGDPRecon(y, mps, coord=coord, schedule=NoiseSchedule.fast(levels=2), show_pbar=False).run()
    print(image.shape)


def main() -> None:
    p = parser(__doc__)
    for name, default in {"size": 40, "coils": 8, "spokes": 420}.items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--noise", type=float, default=0.01, help="standard deviation per real channel")
    p.add_argument("--axial", action="store_true", help="also with the slices of one axis alone")
    p.add_argument("--parts", nargs="*", default=("scores", "memory"), help="what to measure (scores, memory)")
    p.add_argument("--memory-size", type=int, default=128, help="voxels along each axis for the memory")
    p.add_argument("--child", nargs=3, type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        reconstruct(*args.child)
        return
    figures: dict[str, Any] = {name: getattr(args, name) for name in ("size", "coils", "spokes", "noise")}
    if "scores" in args.parts:
        figures["methods"] = compare(args)
    if "memory" in args.parts:
        size, spokes = args.memory_size, args.memory_size**2 // 16
        child = [__file__, "--child", *map(str, (size, args.coils, spokes))]
        memory, seconds, _ = peak_memory(*child)
        figures["memory"] = {"size": size, "spokes": spokes, "levels": 2, "peak (GiB)": memory / 1024, "s": seconds}
        print(f"{size}^3 x {args.coils} coils: {memory / 1024:.1f} GiB, {seconds:.0f} s with 2 levels")
    report(args, figures)


if __name__ == "__main__":
    sys.exit(main())
