"""Table I of the HGGDP paper: three brain slices, seven samplings, one coil; ours beside the paper's columns.

The bundled prior was trained without subjects 3 and 7, which hold the three test slices. The paper's figures were
measured on slices that its training set contains, at the scale of the reference; ours are scaled from the k-space
alone, and no scale is fitted. The baselines' weights are tuned on two validation slices (subject 5) per mask.

    python benchmarks/table1.py --json table1.json
"""

import time
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import need, parser, print_table, report, siat_images
from skimage.metrics import structural_similarity

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.metrics import hfen

#: Mask -> the paper's HGGDPRec: PSNR (dB), SSIM, HFEN.
PAPER = {
    "radial_030": (36.18, 0.9364, 0.42),
    "radial_025": (35.55, 0.9288, 0.50),
    "radial_020": (34.40, 0.9130, 0.65),
    "radial_010": (30.88, 0.8488, 1.29),
    "random_015": (31.78, 0.8649, 1.16),
    "radial_015": (32.79, 0.8873, 0.91),
    "cart_015": (29.05, 0.8225, 1.78),
}
LAMBDAS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
Method = Callable[[np.ndarray], np.ndarray]


def scores(images: np.ndarray, references: np.ndarray) -> list[float]:
    """Mean PSNR, SSIM and HFEN of the magnitudes, peak 1."""
    values = [
        (
            -10 * np.log10(np.mean((x - ref) ** 2)),
            structural_similarity(x, ref, data_range=1),
            hfen(x, ref),
        )
        for x, ref in zip(abs(images), abs(references), strict=True)
    ]
    return [float(v) for v in np.mean(values, axis=0)]


def undersampled(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """k-space (slices, 1, H, W)."""
    return sp.fft(images, axes=(-2, -1))[:, None] * mask


def compressed_sensing(app: Any, lamda: float) -> Method:
    """A SigPy app slice by slice, 100 iterations, on data scaled to a zero-filled maximum of 1."""

    def run(y: np.ndarray) -> np.ndarray:
        images = []
        for ksp in y:
            scale = abs(sp.ifft(ksp[0])).max()
            recon = app(ksp / scale, np.ones_like(ksp), lamda, max_iter=100, show_pbar=False).run()
            images.append(recon * scale)
        return np.stack(images)

    return run


def tuned(app: Any, images: np.ndarray, mask: np.ndarray) -> Method:
    """The app with the weight that is best on validation images."""
    y = undersampled(images, mask)
    return max((compressed_sensing(app, v) for v in LAMBDAS), key=lambda method: scores(method(y), images)[0])


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--published-schedule", action="store_true", help="also the 800 steps of the published schedule")
    args = p.parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    validation = siat_images(args.data / "siat_val.h5", slice(None, None, 30))
    schedules = {f"ours, {len(NoiseSchedule.fast())} evaluations": NoiseSchedule.fast()}
    if args.published_schedule:
        schedules["ours, 800 evaluations"] = NoiseSchedule.hggdp()
    figures: dict[str, Any] = {}
    with h5py.File(need(args.data / "table1.h5"), "r") as file:
        images = file["image"][()]
        masks = {name: file[f"mask/{name}"][()].astype(np.float32) for name in PAPER}
    for name, mask in masks.items():
        methods: dict[str, Method] = {
            "zero-filled": lambda y: sp.ifft(y, axes=(-2, -1))[:, 0],
            "L1-wavelet (SigPy)": tuned(mr.app.L1WaveletRecon, validation, mask),
            "total variation (SigPy)": tuned(mr.app.TotalVariationRecon, validation, mask),
        }
        for label, schedule in schedules.items():
            methods[label] = lambda y, s=schedule: HGGDPRecon(y, prior=prior, schedule=s, show_pbar=False).run()
        rows: dict[str, list[Any]] = {}
        y = undersampled(images, mask)
        for label, method in methods.items():
            start = time.perf_counter()
            recon = method(y)
            seconds = (time.perf_counter() - start) / len(images)
            rows[label] = [*scores(recon, images), seconds]
        figures[name] = rows
        print(f"\n{name}\n")
        shown = {label: [row[0], f"{row[1]:.3f}", row[2], row[3]] for label, row in rows.items()}
        print_table(["PSNR (dB)", "SSIM", "HFEN", "s/slice"], {**shown, "paper's HGGDPRec": [*PAPER[name], ""]})
    report(args, {"rows": figures})


if __name__ == "__main__":
    main()
