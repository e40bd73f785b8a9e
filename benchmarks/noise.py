"""How the share of the measured k-space variance that counts as noise was chosen: PSNR on validation images.

Validation slices (subject 5) with eight simulated coils and noise, ESPIRiT maps from the fully sampled k-space, three
samplings; PSNR against the coil combination of the fully sampled noisy data, which is what a scanner can give.

    python benchmarks/noise.py --json noise.json
"""

import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import parser, print_table, report, siat_images

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.apps.hggdp import NOISE_SHARE
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.maps import espirit_maps
from hggdp_plugin.metrics import score_slices
from hggdp_plugin.simulation import coil_maps

SHARES = (0.1, 0.2, 0.3, 0.5, 1.0)
NOISE = 0.01  # standard deviation per complex sample; the images have maximum magnitude 1


def samplings(shape: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Poisson discs with a 24 x 24 centre, and random lines with 24 central ones."""
    lines = np.zeros(shape, np.float32)
    lines[rng.permutation(shape[0])[: shape[0] // 6]] = 1
    lines[shape[0] // 2 - 12 : shape[0] // 2 + 12] = 1
    discs = {f"Poisson disc R={R}": abs(mr.poisson(shape, R, calib=(24, 24), seed=0)) for R in (6, 10)}
    return {**discs, "random lines R=4": lines}


def main() -> None:
    args = parser(__doc__).parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    rng = np.random.default_rng(0)
    images = siat_images(args.data / "siat_val.h5", slice(5, None, 30))
    shape = images.shape[-2:]
    full = sp.fft(images[:, None] * coil_maps(8, shape), axes=(-2, -1))
    noise = rng.standard_normal((2, *full.shape)).astype(np.float32) * NOISE / 2**0.5
    full = full + noise[0] + 1j * noise[1]
    mps = np.stack([espirit_maps(ksp, 24) for ksp in full])
    reference = (mps.conj() * sp.ifft(full, axes=(-2, -1))).sum(axis=1)
    figures = {}
    for name, mask in samplings(shape, rng).items():
        y = full * mask.astype(np.float32)
        probe = HGGDPRecon(y, mps, prior, schedule=NoiseSchedule.fast(levels=1), show_pbar=False)
        measured = float(np.mean(2 * probe.lamda * abs(probe.scale) ** 2)) / NOISE_SHARE
        row = []
        for share in SHARES:
            app = HGGDPRecon(
                y, mps, prior, lamda=share * measured, schedule=NoiseSchedule.fast(levels=20), show_pbar=False
            )
            row.append(float(np.mean([s.psnr for s in score_slices(app.run(), reference)])))
        figures[name] = row
    print("PSNR (dB) by the share of the measured variance\n")
    print_table([str(share) for share in SHARES], figures)
    report(args, {"shares": SHARES, "psnr": figures})


if __name__ == "__main__":
    main()
