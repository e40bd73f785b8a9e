"""An object larger than the field of view: one or two sets of coil maps (soft-SENSE).

A measured 8-coil brain and the head phantom with 8 simulated coils, whose rows are folded into four fifths of the
object: the coil images, and the k-space, that a scan with so small a field of view has. Lines are left out, and the
maps are estimated from the central 24. PSNR of the magnitude, inside the object and after the scale that fits best,
against the root sum of squares of the coil images of the fully sampled field of view, peak 1. BART's ``pics`` has maps
of ``ecalib`` with as many sets, the best of three weights by the truth, and its images are combined by ``rss``. Without
the wheel ``bartorch`` its columns are missing.

    python benchmarks/small_fov.py --json benchmarks/results/small_fov.json
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
from common import need, parser, print_table, report
from maps import bart_maps, norm

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.coil_maps import combine_sets, espirit_maps
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.simulation import coil_maps, head_phantom, masks

SHARE, CALIB, NOISE, WEIGHTS = 0.8, 24, 0.01, (0.001, 0.003, 0.01)


def folded(images: np.ndarray) -> np.ndarray:
    """Coil images in a field of view of four fifths of the object, along the rows."""
    rows = np.flatnonzero((norm(images) > 0.1 * norm(images).max()).any(axis=1))
    size = 2 * round(SHARE * (rows[-1] - rows[0]) / 2)
    place = (np.arange(images.shape[1]) - images.shape[1] // 2 + size // 2) % size
    return np.stack([images[:, place == row].sum(axis=1) for row in range(size)], axis=1)


def scans(folder: Path) -> dict[str, np.ndarray]:
    """Coil images (coils, H, W) of maximum about 1."""
    brain = sp.ifft(np.load(need(folder / "brain8ch_full.npy")), axes=(-2, -1))
    rng, shape = np.random.default_rng(0), (192, 192)
    phantom = folded(coil_maps(8, shape) * head_phantom(shape, num_slices=1)[0])
    noise = rng.standard_normal((2, *phantom.shape)) * NOISE / 2**0.5
    found = {"brain": folded(brain), "phantom": phantom + noise[0] + 1j * noise[1]}
    return {name: (a / np.quantile(norm(a), 0.999)).astype(np.complex64) for name, a in found.items()}


def bart_wavelet(y: np.ndarray, mps: np.ndarray, weight: float) -> np.ndarray:
    from bartorch._dispatch import run_command

    with tempfile.TemporaryDirectory() as folder:
        write_cfl(Path(folder, "ksp.cfl"), y[:, None])
        write_cfl(Path(folder, "mps.cfl"), mps.reshape(-1, len(y), 1, *y.shape[-2:]))
        command = f"pics -S -R W:3:0:{weight} -i 100 {folder}/ksp {folder}/mps {folder}/image"
        code, _, failure = run_command(command.split())
        if code:
            raise RuntimeError(f"bart {command}: {failure}")
        return norm(read_cfl(Path(folder, "image.cfl")).reshape(-1, *y.shape[-2:]))


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Outside the object, the truth is noise of all coils."""
    inside = truth > 0.1
    image, truth = abs(image)[inside], truth[inside]
    return float(-10 * np.log10(np.mean((image * (image @ truth) / (image @ image) - truth) ** 2)))


def compare(images: np.ndarray, accel: int, prior: Any) -> dict[str, float]:
    truth, y = norm(images), sp.fft(images, axes=(-2, -1)).astype(np.complex64)
    y *= masks.uniform_lines(y.shape[-2], accel, CALIB)[:, None]
    found = {}
    for maps, name in ((1, "one set"), (2, "two sets")):
        image = HGGDPRecon(y, espirit_maps(y, CALIB, maps=maps), maps=maps, prior=prior, show_pbar=False).run()
        found[f"HGGDPRecon, {name}"] = psnr(combine_sets(image) if maps > 1 else image, truth)
        if find_spec("bartorch"):
            mps = bart_maps(y, CALIB, maps)
            found[f"BART, {name}"] = max(psnr(bart_wavelet(y, mps, weight), truth) for weight in WEIGHTS)
    return found


def main() -> None:
    args = parser(__doc__).parse_args()
    prior, rows = load_prior(args.prior) if args.prior else load_prior(), {}
    for name, images in scans(args.data).items():
        for accel in (2, 3):
            rows[f"{name}, R={accel}"] = compare(images, accel, prior)
    columns = sorted(next(iter(rows.values())))
    print_table(columns, {name: [row[column] for column in columns] for name, row in rows.items()})
    report(args, {"psnr": rows})


if __name__ == "__main__":
    main()
