"""How much of the noise counts in the data consistency, and how much of what is measured: PSNR on validation images.

Validation slices (subject 5) with eight simulated coils and three levels of noise, ESPIRiT maps from the calibration
data, two samplings; PSNR of the magnitude against the image without noise. ``lamda`` is a share of the true noise
variance, as it is known of prewhitened data, or of the variance that is measured at the periphery of k-space.

    python benchmarks/noise.py --json noise.json
"""

import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.apps.hggdp import NOISE_SHARE
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.maps import espirit_maps
from hggdp_plugin.metrics import score
from hggdp_plugin.simulation import coil_maps

SHARES = {"true": (0.12, 0.25, 0.5, 1.0), "measured": (0.1, 0.2, 0.3, 0.5, 1.0)}
NOISES = (0.005, 0.01, 0.02)  # standard deviation of a complex sample; the images have maximum magnitude 1
COILS, CALIB = 8, 24


def samplings(shape: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A Poisson disc with a square centre, and random lines with central ones."""
    lines = np.zeros(shape, np.float32)
    lines[rng.permutation(shape[0])[: shape[0] // 6]] = 1
    lines[(shape[0] - CALIB) // 2 : (shape[0] + CALIB) // 2] = 1
    disc = mr.poisson(shape, 6, calib=(CALIB, CALIB), seed=0, dtype=np.float32)
    return {"Poisson disc R=6": disc, "random lines R=4": lines}


def main() -> None:
    args = parser(__doc__).parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    rng = np.random.default_rng(0)
    images = iter(siat_images(args.data / "siat_val.h5", slice(5, None, 10)))
    figures: dict[str, list[float]] = {}
    for noise in NOISES:
        for name, mask in samplings((256, 256), rng).items():
            image = next(images)
            pairs = rng.standard_normal((COILS, *image.shape, 2), dtype=np.float32) * np.float32(noise / 2**0.5)
            y = mask * (sp.fft(image * coil_maps(COILS, image.shape), axes=(-2, -1)) + pairs.view(np.complex64)[..., 0])
            mps = espirit_maps(y, CALIB)
            reference = np.where(mps.any(axis=0), image, 0)
            probe = HGGDPRecon(y, mps, prior, show_pbar=False)
            known = {"true": noise**2, "measured": (2 * probe.lamda * abs(probe.scale) ** 2).item() / NOISE_SHARE}
            figures[f"noise {noise:g}, {name}"] = row = []
            for rule, shares in SHARES.items():
                for share in shares:
                    app = HGGDPRecon(y, mps, prior, lamda=share * known[rule], show_pbar=False)
                    row.append(float(score(app.run(), reference).psnr))
    print("PSNR (dB) by the share of the true or the measured variance\n")
    print_table([f"{share:g} {rule}" for rule, shares in SHARES.items() for share in shares], figures)
    report(args, {"shares": SHARES, "psnr": figures})


if __name__ == "__main__":
    main()
