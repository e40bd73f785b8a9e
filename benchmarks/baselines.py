"""Reconstructions to compare with: zero-filled, SigPy's and BART's, each with the best of four weights."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import sigpy.mri as mr
from scans import Problem

from hggdp_plugin.metrics import Scores, score

#: Regularization weights, relative to the noise's standard deviation for an image of maximum 1.
WEIGHTS = {"grid": (0.1, 0.3, 1.0, 3.0), "radial": (0.03, 0.1, 0.3, 1.0)}
#: Noise that is assumed at least: of measured data without visible noise.
LEAST_NOISE = 1e-3

Method = Callable[[Problem, float], np.ndarray]


def zero_filled(problem: Problem, weight: float = 0.0) -> np.ndarray:
    """Adjoint; for radial samples with the ramp as density compensation."""
    A = mr.linop.Sense(problem.mps, coord=problem.coord)
    if problem.coord is None:
        return A.H(problem.y)
    ramp = np.linalg.norm(problem.coord, axis=-1).astype(np.float32) + np.float32(0.25)
    return A.H(problem.y * ramp)


def sigpy_wavelet(problem: Problem, weight: float, iterations: int = 50) -> np.ndarray:
    """SigPy's L1-wavelet reconstruction; more than 50 iterations bring nothing."""
    options = {"coord": problem.coord, "max_iter": iterations, "show_pbar": False}
    return mr.app.L1WaveletRecon(problem.y, problem.mps, weight * _peak(problem), **options).run()


def sigpy_tv(problem: Problem, weight: float) -> np.ndarray:
    """SigPy's total variation; with ADMM, which gets farther in 20 x 5 than its default in 400 iterations."""
    lamda = weight * _peak(problem)
    app = mr.app.TotalVariationRecon(
        problem.y,
        problem.mps,
        lamda,
        coord=problem.coord,
        solver="ADMM",
        rho=0.1,
        max_iter=20,
        max_cg_iter=5,
        show_pbar=False,
    )
    return app.run()


def bart_wavelet(problem: Problem, weight: float, iterations: int = 100) -> np.ndarray:
    """BART's L1-wavelet reconstruction (``pics -R W:3:0:weight -i 100``, off the grid with ``-e``)."""
    import torch
    from bartorch import apps, priors

    coord, traj = problem.coord, None
    y = problem.y[:, None] if coord is None else problem.y
    if coord is not None:
        traj = torch.from_numpy(np.stack([coord[..., 1], coord[..., 0], np.zeros_like(coord[..., 0])], axis=-1))
    image = apps.pics(
        torch.from_numpy(np.ascontiguousarray(y)),
        torch.from_numpy(np.ascontiguousarray(problem.mps[:, None])),
        regularizers=priors.Wavelet((-1, -2), weight),
        maxiter=iterations,
        traj=traj,
        eigen_step=traj is not None,  # FISTA with its default step size diverges on radial samples
    )
    return image.numpy().squeeze()


METHODS: dict[str, Method] = {"zero-filled": zero_filled, "SigPy L1-wavelet": sigpy_wavelet, "SigPy TV": sigpy_tv}
if find_spec("bartorch"):
    METHODS["BART L1-wavelet"] = bart_wavelet


def best(method: Method, problem: Problem) -> tuple[np.ndarray, Scores, float]:
    """The image of highest PSNR over the weights, its scores and its weight.

    The two middle weights are tried, then the one beyond the better.
    """
    factors = WEIGHTS["grid" if problem.coord is None else "radial"]
    weights = [max(problem.noise, LEAST_NOISE) * factor for factor in factors]
    if method is zero_filled:
        weights = [0.0]

    def tried(weight: float) -> tuple[np.ndarray, Scores, float]:
        image = method(problem, weight)
        return image, score(image, problem.reference), weight

    if len(weights) == 1:
        return tried(weights[0])
    low, high = tried(weights[1]), tried(weights[2])
    beyond = tried(weights[0] if low[1].psnr > high[1].psnr else weights[3])
    return max(low, high, beyond, key=lambda candidate: candidate[1].psnr)


def _peak(problem: Problem) -> float:
    """What makes a weight relative: the largest magnitude of the adjoint, as an image of maximum 1 has it."""
    return float(abs(mr.linop.Sense(problem.mps, coord=problem.coord).H(problem.y)).max())
