"""How much of the noise counts in the data consistency, and how much of what is measured: PSNR on validation images.

Validation slices (subject 5) with eight simulated coils and three levels of noise, ESPIRiT maps from the calibration
data, three samplings; PSNR of the magnitude against the image without noise. ``noise_var`` is a share of the true noise
variance, as it is known of prewhitened data, or of the variance that is measured at the periphery of k-space.

    python benchmarks/noise.py --json noise.json
"""

from typing import Any

import numpy as np
import sigpy.mri as mr
from common import parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.linops import Sense
from hggdp_plugin.metrics import score
from hggdp_plugin.problem import CARTESIAN_NOISE_SHARE, NON_CARTESIAN_NOISE_SHARE, SenseProblem
from hggdp_plugin.simulation import coil_maps
from hggdp_plugin.simulation.masks import radial_trajectory

SHARES = {"true": (0.12, 0.25, 0.5, 1.0), "measured": (0.1, 0.2, 0.3, 0.5, 1.0)}
NOISES = (0.005, 0.01, 0.02)  # standard deviation of a complex sample; the images have maximum magnitude 1
COILS, CALIB, SPOKES, SIZE = 8, 24, 40, 256


def samplings(rng: np.random.Generator) -> dict[str, tuple[Any, Any]]:
    """Weights of Cartesian samples, a Poisson disc and random lines with a center, or coordinates of others, spokes."""
    lines = np.zeros((SIZE, SIZE), np.float32)
    lines[rng.permutation(SIZE)[: SIZE // 6]] = 1
    lines[(SIZE - CALIB) // 2 : (SIZE + CALIB) // 2] = 1
    disc = mr.poisson((SIZE, SIZE), 6, calib=(CALIB, CALIB), seed=0, dtype=np.float32)
    return {
        "Poisson disc R=6": (disc, None),
        "random lines R=4": (lines, None),
        f"radial, {SPOKES} spokes": (None, radial_trajectory(SPOKES, SIZE) * SIZE),
    }


def main() -> None:
    args = parser(__doc__).parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    rng = np.random.default_rng(0)
    images = iter(siat_images(args.data / "siat_val.h5", slice(5, None, 6)))
    figures: dict[str, list[float]] = {}

    def noisy(k: np.ndarray, noise: float) -> np.ndarray:
        pairs = rng.standard_normal((*k.shape, 2), dtype=np.float32) * np.float32(noise / 2**0.5)
        return k + pairs.view(np.complex64)[..., 0]

    for noise in NOISES:
        for name, (weights, coord) in samplings(rng).items():
            image, truth = next(images), coil_maps(COILS, (SIZE, SIZE))
            mps = espirit_maps(noisy(Sense(truth)(image), noise), CALIB)
            y = noisy(Sense(truth, coord=coord)(image), noise)
            if weights is not None:
                y *= weights
            reference = np.where(mps.any(axis=0), image, 0)
            problem = SenseProblem.build(y, mps, coord=coord)
            counted = CARTESIAN_NOISE_SHARE if coord is None else NON_CARTESIAN_NOISE_SHARE
            known = {"true": noise**2, "measured": (problem.noise_var * abs(problem.scale) ** 2).item() / counted}
            figures[f"noise {noise:g}, {name}"] = row = []
            for rule, shares in SHARES.items():
                for share in shares:
                    app = HGGDPRecon(y, mps, noise_var=share * known[rule], coord=coord, prior=prior, show_pbar=False)
                    row.append(float(score(app.run(), reference).psnr))
    print("PSNR (dB) by the share of the true or the measured variance\n")
    print_table([f"{share:g} {rule}" for rule, shares in SHARES.items() for share in shares], figures)
    report(args, {"shares": SHARES, "psnr": figures})


if __name__ == "__main__":
    main()
