"""Table I of the HGGDP paper: three brain slices, seven samplings, one coil; ours beside the paper's columns.

The bundled prior was trained without subjects 3 and 7, which hold the three test slices. The paper's figures were
measured on slices that its training set contains, at the scale of the reference; ours are scaled from the k-space
alone, and no scale is fitted. The baselines' weights are tuned on two validation slices (subject 5) per mask.

    python benchmarks/table1.py --json table1.json
    python benchmarks/table1.py --prior mri-any --ours --json table1_mri-any.json
    python benchmarks/table1.py --hggdp 1 --masks radial_015 random_015 --figure table1.png

The last also runs the published schedule, 800 evaluations and minutes an image, on the first image of each row, and
draws that image. The figure shows measured data: it is not ours to pass on.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import need, parser, print_table, report, siat_images
from skimage.metrics import structural_similarity

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.figures import comparison
from hggdp_plugin.metrics import hfen

#: Mask -> the paper's columns: PSNR (dB), SSIM, HFEN.
PAPER: dict[str, dict[str, tuple[float | None, ...]]] = {
    mask: dict(zip(("DLMRI", "EDAEPRec", "NCSNRec", "HGGDPRec"), columns, strict=True))
    for mask, columns in {
        "radial_030": ((33.43, 0.9054, 0.63), (35.62, 0.9279, 0.42), (34.08, 0.9090, 0.76), (36.18, 0.9364, 0.42)),
        "radial_025": ((32.41, 0.8866, 0.84), (34.49, 0.9151, 0.64), (33.51, 0.9013, 0.85), (35.55, 0.9288, 0.50)),
        "radial_020": ((31.21, 0.8602, 1.10), (33.49, 0.8990, 0.79), (32.59, 0.8868, 1.01), (34.40, 0.9130, 0.65)),
        "radial_010": ((27.39, None, 2.18), (30.30, 0.8319, 1.40), (29.76, 0.8330, 1.57), (30.88, 0.8488, 1.29)),
        "random_015": ((27.63, 0.7518, 2.02), (30.68, 0.8433, 1.31), (30.18, 0.8445, 1.47), (31.78, 0.8649, 1.16)),
        "radial_015": ((29.36, 0.7518, 2.02), (32.00, 0.8716, 1.05), (31.32, 0.8658, 1.24), (32.79, 0.8873, 0.91)),
        "cart_015": ((26.50, 0.7390, 2.51), (28.85, 0.8041, 1.81), (28.53, 0.8175, 1.92), (29.05, 0.8225, 1.78)),
    }.items()
}
LAMBDAS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
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


def noise_share(images: np.ndarray, references: np.ndarray, mask: np.ndarray) -> float:
    """Share of the squared error that is the references' own noise, which nobody can know where nothing was measured.

    It is taken as white, with the variance of their k-space in its corners, where there is hardly anything else.
    """
    ny, nx = mask.shape
    radius = np.hypot(*np.ogrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j])
    variance = np.mean(abs(sp.fft(references, axes=(-2, -1))[:, radius > 1.25]) ** 2)
    return float(variance * (1 - mask.mean()) / np.mean(abs(images - references) ** 2))


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


def tuned(app: Any, images: np.ndarray, mask: np.ndarray) -> tuple[Method, float]:
    """The app with the weight that is best on validation images, and the weight."""
    y = undersampled(images, mask)
    best = max(LAMBDAS, key=lambda v: scores(compressed_sensing(app, v)(y), images)[0])
    return compressed_sensing(app, best), best


def ours(schedule: NoiseSchedule, prior: Any, samples: int = 1) -> Method:
    """Our reconstruction of all slices at once, the mean of several with different noise (``hggdp recon -S``)."""

    def run(y: np.ndarray) -> np.ndarray:
        seeds = range(samples)
        apps = (HGGDPRecon(y, prior=prior, schedule=schedule, seed=seed, show_pbar=False) for seed in seeds)
        return np.mean([app.run() for app in apps], axis=0)

    return run


def measure(
    images: np.ndarray, mask: np.ndarray, validation: np.ndarray | None, prior: Any, hggdp: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One row of the table, the published schedule on ``hggdp`` images only; and the images.

    Without validation images, on which the others' weights are tuned: our default alone.
    """
    fast, more, published = NoiseSchedule.fast(), NoiseSchedule.fast(50), NoiseSchedule.hggdp()
    everything = len(images)
    methods: dict[str, tuple[Method, int, dict[str, Any]]] = {}
    if validation is not None:
        wavelet, lamda_wavelet = tuned(mr.app.L1WaveletRecon, validation, mask)
        variation, lamda_tv = tuned(mr.app.TotalVariationRecon, validation, mask)
        methods |= {
            "zero-filled": (lambda y: sp.ifft(y, axes=(-2, -1))[:, 0], everything, {}),
            "L1-wavelet (SigPy)": (wavelet, everything, {"lamda": lamda_wavelet}),
            "total variation (SigPy)": (variation, everything, {"lamda": lamda_tv}),
        }
    methods["ours, fast"] = (ours(fast, prior), everything, {"evaluations": fast.evaluations})
    if validation is not None:
        methods |= {
            "ours, fast, 50 levels": (ours(more, prior), everything, {"evaluations": more.evaluations}),
            "ours, fast, mean of 2": (ours(fast, prior, 2), everything, {"evaluations": 2 * fast.evaluations}),
            "ours, hggdp": (ours(published, prior), hggdp, {"evaluations": published.evaluations}),
        }
    y = undersampled(images, mask)
    rows: dict[str, Any] = {}
    recons: dict[str, np.ndarray] = {}
    for label, (method, number, about) in methods.items():
        if not number:
            continue
        start = time.perf_counter()
        recons[label] = method(y[:number])
        seconds = (time.perf_counter() - start) / number
        psnr, ssim, high = scores(recons[label], images[:number])
        noise = noise_share(recons[label], images[:number], mask)
        figures = {"psnr": psnr, "ssim": ssim, "hfen": high, "noise": noise, "seconds": seconds, "images": number}
        rows[label] = figures | about
    return rows, recons


def show(rows: dict[str, Any], paper: dict[str, tuple[float | None, ...]]) -> None:
    """Print one row of the table, a line a method."""
    keys = ("psnr", "ssim", "hfen", "noise", "evaluations", "seconds", "images")
    cells = {label: [row.get(key) for key in keys] for label, row in rows.items()}
    cells |= {f"paper's {label}": [*values, None, None, None, None] for label, values in paper.items()}
    for row in cells.values():
        row[1] = row[1] and f"{row[1]:.3f}"
    columns = ["PSNR (dB)", "SSIM", "HFEN", "share of noise", "evaluations", "s/slice", "images"]
    print_table(columns, {label: ["" if v is None else v for v in row] for label, row in cells.items()})


def draw(path: Path, image: np.ndarray, recons: dict[str, dict[str, np.ndarray]]) -> None:
    """Write a figure in the form of the paper's for each mask: images, a part of them enlarged, errors."""
    ny, nx = image.shape
    center = slice(ny // 2 - ny // 8, ny // 2 + ny // 8), slice(nx // 2 - nx // 8, nx // 2 + nx // 8)
    for mask, methods in recons.items():
        figure = comparison({label: images[0] for label, images in methods.items()}, image, zoom=center)
        figure.savefig(path.with_stem(f"{path.stem}-{mask}") if len(recons) > 1 else path, dpi=150)


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--hggdp", type=int, default=0, metavar="N", help="also the published schedule, on N images a row")
    p.add_argument("--masks", nargs="+", choices=PAPER, default=list(PAPER), help="rows of the table (default: all)")
    p.add_argument("--ours", action="store_true", help="our default schedule alone")
    p.add_argument("--figure", type=Path, help="picture of the first image to write; one for each of several masks")
    args = p.parse_args()
    prior = load_prior(args.prior or DEFAULT_PRIOR)
    validation = None if args.ours else siat_images(args.data / "siat_val.h5", slice(None, None, 30))
    with h5py.File(need(args.data / "table1.h5"), "r") as file:
        images = file["image"][()]
        masks = {name: file[f"mask/{name}"][()].astype(np.float32) for name in args.masks}
    figures: dict[str, Any] = {}
    pictures: dict[str, dict[str, np.ndarray]] = {}
    for name, mask in masks.items():
        figures[name], pictures[name] = measure(images, mask, validation, prior, args.hggdp)
        print(f"\n{name}\n")
        show(figures[name], PAPER[name])
    if args.figure:
        draw(args.figure, images[0], pictures)
    report(args, {"rows": figures, "paper": {name: PAPER[name] for name in masks}})


if __name__ == "__main__":
    main()
