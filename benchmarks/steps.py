"""How the one-step-per-level sampler's settings were chosen: PSNR on validation images against evaluations.

Single-coil validation slices (subject 5) under three masks, each setting at several numbers of evaluations. The masks
are those of the test's file, the images are not.

    python benchmarks/steps.py --json steps.json
"""

import time
from typing import Any

import h5py
import numpy as np
import sigpy as sp
from common import need, parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.prior import ScorePrior

MASKS = ("random_015", "radial_020", "cart_020")
#: Each differs in one setting from the first, the default.
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "eta 0": {"eta": 0.0},
    "eta 0.3": {"eta": 0.3},
    "momentum 0": {"momentum": 0.0},
    "momentum 0.8": {"momentum": 0.8},
    "no turns": {"turn": False},
    "sigma_max 0.08": {"sigma_max": 0.08},
    "sigma_max 0.3": {"sigma_max": 0.3},
    "sigma_min 0.01": {"sigma_min": 0.01},
    "sigma_min 0.003": {"sigma_min": 0.003},
}


def psnr(images: np.ndarray, references: np.ndarray) -> float:
    """Mean PSNR of the magnitudes, peak 1: no scale is fitted."""
    error = np.mean((abs(images) - abs(references)) ** 2, axis=(-2, -1))
    return float(np.mean(-10 * np.log10(error)))


def measure(
    images: np.ndarray, masks: dict[str, np.ndarray], prior: ScorePrior, setting: dict[str, Any]
) -> list[float]:
    """PSNR under each mask and their mean."""
    values = []
    for mask in masks.values():
        y = sp.fft(images, axes=(-2, -1))[:, None] * mask
        recon = HGGDPRecon(y, prior=prior, schedule=NoiseSchedule.fast(**setting), show_pbar=False).run()
        values.append(psnr(recon, images))
    return [*values, float(np.mean(values))]


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--levels", type=int, nargs="+", default=[10, 20, 40], help="numbers of evaluations")
    p.add_argument("--slices", type=int, default=4, help="validation slices, evenly spaced")
    args = p.parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    images = siat_images(args.data / "siat_val.h5")
    images = images[:: -(-len(images) // args.slices)]
    with h5py.File(need(args.data / "table1.h5"), "r") as file:
        masks = {name: file[f"mask/{name}"][()].astype(np.float32) for name in MASKS}
    figures: dict[str, Any] = {}
    for levels in args.levels:
        start = time.perf_counter()
        figures[levels] = {
            name: measure(images, masks, prior, {"levels": levels, **setting}) for name, setting in SETTINGS.items()
        }
        print(f"\n{levels} evaluations, PSNR (dB); {time.perf_counter() - start:.0f} s\n")
        print_table([*MASKS, "mean"], figures[levels])
    report(args, {"slices": len(images), "psnr": figures})


if __name__ == "__main__":
    main()
