"""What each process of tests/test_processes.py does: mpirun -n 2 python mpi_ranks.py FOLDER."""

import sys
from pathlib import Path

import numpy as np
import sigpy as sp
import torch
from helpers import radial, smooth_maps

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.schedule import FewStep, NoiseSchedule, geometric

SCHEDULE = NoiseSchedule(geometric(0.2, 0.02, 6), rule=FewStep(eta=0.3, momentum=0.3))
SHAPE, COILS = (32, 28), 5
#: Coils of the first process; the other has the rest.
SPLIT = 3


class BreaksDown(ScorePrior):
    """A prior that fails at its third image."""

    calls = 0

    def denoise(self, *args, **options):
        self.calls += 1
        if self.calls == 3:
            raise MemoryError("no memory for the network")
        return super().denoise(*args, **options)


def make_prior(kind=ScorePrior, seed=7) -> ScorePrior:
    torch.manual_seed(seed)
    network = UNet(widths=(8, 16), blocks=1)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return kind(network, autocast=False)


def measure(name: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """k-space, maps and options of all coils."""
    rng = np.random.default_rng(3)
    image = np.zeros(SHAPE, np.complex64)
    image[5:-5, 6:-6] = np.exp(1j * np.linspace(-1, 1, SHAPE[1] - 12))
    image[12:20, 10:14] *= 0.4
    mps = smooth_maps(COILS, SHAPE)
    if name == "radial":
        coord = radial(SHAPE, 24, 64)
        y, options = sp.nufft(mps * image, coord), {"coord": coord}
    else:
        mask = rng.random(SHAPE) < 0.5
        mask[13:19, 11:17] = True
        y, options = mask * sp.fft(mps * image, axes=(-2, -1)), {}
    y = y + 0.02 * (y != 0) * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))
    if name == "slices":
        y, mps = np.stack([y, 2 * y[:, ::-1]]), np.stack([mps, mps[:, ::-1]])
    if name == "noise_var":
        options["noise_var"] = 1e-3
    return y.astype(np.complex64), mps, options


def recon(comm: sp.Communicator | None, name: str, **changes) -> tuple[np.ndarray, np.ndarray]:
    """The image, and the noise variance that counted."""
    y, mps, options = measure(name)
    options = {"prior": make_prior(), "schedule": SCHEDULE, "seed": 1, "show_pbar": False, **options, **changes}
    if comm is not None and comm.size > 1:
        mine = slice(SPLIT) if comm.rank == 0 else slice(SPLIT, None)
        y, mps = y[..., mine, :, :], mps[..., mine, :, :]
    if options.pop("broken", False):
        y[:] = np.nan
    app = HGGDPRecon(y, mps, comm=comm, **options)
    return app.run(), app.problem.noise_var


def failure(comm: sp.Communicator, **changes) -> str:
    try:
        recon(comm, "cartesian", **changes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    folder, comm = Path(sys.argv[1]), sp.Communicator()
    torch.set_num_threads(1)
    results = {}
    for name in ("cartesian", "noise_var", "slices", "radial"):
        results[name], results[f"{name}_noise_var"] = recon(comm, name)
    second = comm.rank == 1
    results["argument"] = failure(comm, broken=second)
    results["midway"] = failure(comm, prior=make_prior(BreaksDown if second else ScorePrior))
    results["seed"] = failure(comm, seed=comm.rank)
    results["prior"] = failure(comm, prior=make_prior(seed=comm.rank))
    results["after"] = recon(comm, "cartesian")[0]
    np.savez(folder / f"{comm.rank}.npz", size=comm.size, **results)


if __name__ == "__main__":
    main()
