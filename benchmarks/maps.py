"""Coil maps beside those of SigPy (EspiritCalib) and BART (ecalib): CPU seconds, agreement, reconstructions.

On two measured brains (8 and 7 coils), and on the head phantom with 8, 16 and 32 simulated coils, 256 x 256, noise 1 %
of the maximum. All methods get the same calibration region, 24 x 24. Distances of maps are the root mean square of the
sine of the angle between them, inside the object. CPU seconds are the best of several runs; give all methods one
thread, because waiting threads spin. BART is that of the wheel ``bartorch``; without it its columns are empty.

    OMP_NUM_THREADS=1 python benchmarks/maps.py --json maps.json

With ``--parts`` only some tables are measured; the others stay in the JSON file.
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from common import need, parser, print_table, report

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.coil_maps import VolumeMaps, espirit_maps
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.simulation import coil_maps, head_phantom, masks

METHODS = ("ours", "SigPy", "BART")
REGIONS = (24, 16, 12, 10, 9, 8, 7, 6, 5)
#: A map is used where its norm exceeds this.
SEEN = 0.5


def sigpy_maps(ksp: np.ndarray, width: int = 24) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        maps = mr.app.EspiritCalib(ksp / abs(ksp).max(), calib_width=width, show_pbar=False).run()
    return np.nan_to_num(maps, nan=0, posinf=0, neginf=0)


def bart_maps(ksp: np.ndarray, width: int | tuple[int, int] = 24, sets: int = 1) -> np.ndarray:
    from bartorch._dispatch import run_command

    height, width = (width, width) if isinstance(width, int) else width
    with tempfile.TemporaryDirectory() as folder:
        write_cfl(Path(folder, "ksp.cfl"), ksp[:, None])
        command = f"ecalib -m{sets} -r {width}:{height}:1 {folder}/ksp {folder}/mps"
        code, _, failure = run_command(command.split())
        if code:
            raise RuntimeError(f"bart {command}: {failure}")
        return read_cfl(Path(folder, "mps.cfl")).reshape(sets, *ksp.shape)[0 if sets == 1 else slice(None)]


def timed(function: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """Result and CPU seconds of all threads, the best of several."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def norm(mps: np.ndarray) -> np.ndarray:
    return np.sqrt((abs(mps) ** 2).sum(axis=0))


def distance(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """Sine of the angle between maps: root mean square and 99th percentile over the pixels that both have."""
    both = where & (norm(a) > SEEN) & (norm(b) > SEEN)
    cosine = abs((a.conj() * b).sum(axis=0))[both].astype(float) / (norm(a) * norm(b))[both]
    sine = np.sqrt(np.clip(1 - cosine**2, 0, 1))
    return {
        "rms": float(np.sqrt((sine**2).mean())),
        "p99": float(np.quantile(sine, 0.99)),
        "pixels": float(both.sum() / where.sum()),
    }


def simulated(coils: int, size: int = 256) -> np.ndarray:
    image, rng = head_phantom((size, size), num_slices=1)[0], np.random.default_rng(0)
    ksp = sp.fft(coil_maps(coils, (size, size)) * image, axes=(-2, -1))
    noise = rng.standard_normal((2, *ksp.shape)) * abs(image).max() / 100 / 2**0.5
    return (ksp + noise[0] + 1j * noise[1]).astype(np.complex64)


def brains(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(need(folder / "reach.h5"), "r") as file:
        seven = sp.fft(file["brain_t1_7coils"][()], axes=(-2, -1)).astype(np.complex64)
    return {"brain, 8 coils": np.load(need(folder / "brain8ch_full.npy")), "brain, 7 coils": seven}


def methods() -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    found: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"ours": espirit_maps, "SigPy": sigpy_maps}
    return found | ({"BART": bart_maps} if find_spec("bartorch") else {})


def root_sum_of_squares(ksp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image without maps, peak 1, and where the object is."""
    image = norm(sp.ifft(ksp, axes=(-2, -1)))
    image /= np.quantile(image, 0.999)
    return image, image > 0.1


def compare(name: str, ksp: np.ndarray, true: np.ndarray | None) -> dict[str, Any]:
    _, inside = root_sum_of_squares(ksp)
    maps, seconds = {}, {}
    for method, make in methods().items():
        repeats = {"ours": 7, "BART": 3}.get(method, 1)
        maps[method], seconds[method] = timed(lambda make=make: make(ksp, 24), repeats)
    pairs = {f"ours, {m}": distance(maps["ours"], maps[m], inside) for m in maps if m != "ours"}
    if "BART" in maps:
        pairs["SigPy, BART"] = distance(maps["SigPy"], maps["BART"], inside)
    if true is not None:
        pairs |= {f"{m}, true": distance(maps[m], true, inside) for m in maps}
    print(name, seconds, pairs, flush=True)
    return {"cpu_seconds": seconds, "distance": pairs}


def reconstructions(ksp: np.ndarray) -> dict[str, dict[str, float]]:
    """PSNR [dB] of the magnitude against the root sum of squares of all data, inside the object."""
    truth, inside = root_sum_of_squares(ksp)
    ksp = (ksp * (truth.max() / norm(sp.ifft(ksp, axes=(-2, -1))).max())).astype(np.complex64)
    shape, prior = (int(ksp.shape[-2]), int(ksp.shape[-1])), load_prior()
    lines = {
        f"{kind} lines R=4": make(shape[0], 4, 24)[:, None]
        for kind, make in (("uniform", masks.uniform_lines), ("random", masks.random_lines))
    }
    table: dict[str, dict[str, float]] = {}
    for name, mask in (lines | {"Poisson disc R=6": masks.poisson_disc(shape, 6, 24)}).items():
        y = ksp * np.broadcast_to(mask, shape)
        table[name] = {}
        for method, make in methods().items():
            image = abs(HGGDPRecon(y, make(y, 24), prior=prior, show_pbar=False).run())
            image *= (image * truth)[inside].sum() / (image**2)[inside].sum()
            table[name][method] = float(-10 * np.log10(np.mean((image - truth)[inside] ** 2)))
        print(name, table[name], flush=True)
    return table


def small_regions(ksp: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Distances from the true maps, and the share of the object where there are maps, by lines of calibration."""
    _, inside = root_sum_of_squares(ksp)
    table: dict[str, Any] = {}
    for lines in REGIONS:
        maps = {"ours": espirit_maps(ksp, (lines, 24))}
        if lines > 6:
            maps["SigPy"] = sigpy_maps(sp.resize(sp.resize(ksp, (len(ksp), lines, lines)), ksp.shape), lines)
        if find_spec("bartorch"):
            with suppress(RuntimeError):  # regions smaller than BART's kernel
                maps["BART"] = bart_maps(sp.resize(sp.resize(ksp, (len(ksp), lines, 24)), ksp.shape), (lines, 24))
        table[str(lines)] = {m: distance(a, true, inside) for m, a in maps.items() if (norm(a) > SEEN)[inside].any()}
    return table


def volume(coils: int, shape: tuple[int, int, int] = (96, 64, 80)) -> dict[str, Any]:
    """CPU seconds and distances from the true maps, of one 3D calibration and of one for each readout position."""
    image, rng = np.moveaxis(head_phantom((shape[2], shape[0]), num_slices=shape[1]), -1, 0), np.random.default_rng(0)
    true = np.moveaxis(mr.birdcage_maps((coils, shape[1], shape[2], shape[0])), -1, 1)
    true /= norm(true)
    ksp = sp.fft(true * image, axes=(-2, -1)).swapaxes(0, 1)
    noise = rng.standard_normal((2, *ksp.shape)) * abs(image).max() / 50 / 2**0.5
    ksp = (ksp + noise[0] + 1j * noise[1]).astype(np.complex64)
    inside = abs(image) > 0.1 * abs(image).max()
    figures: dict[str, Any] = {}
    for region in ((24, 24), (8, 24)):
        makers = {"one by one": espirit_maps, "together": VolumeMaps.along_readout}
        for name, make in makers.items():
            start = time.process_time()
            maps = np.stack(list(make(ksp, region)), axis=1)
            seconds = time.process_time() - start
            figures[f"{region[0]} x {region[1]}, {name}"] = {"cpu_seconds": seconds, **distance(maps, true, inside)}
    return figures


def print_maps(rows: dict[str, Any]) -> None:
    pairs = ("ours, SigPy", "ours, BART", "SigPy, BART")
    print_table(
        [f"{m}, CPU s" for m in METHODS] + ["ours to SigPy", "ours to BART", "BART to SigPy"],
        {
            name: [f"{row['cpu_seconds'].get(m, np.nan):.3f}" for m in METHODS]
            + [f"{row['distance'].get(pair, {}).get('rms', np.nan):.4f}" for pair in pairs]
            for name, row in rows.items()
        },
    )


def print_regions(rows: dict[str, Any]) -> None:
    def cell(figures: dict[str, float] | None) -> str:
        return f"{figures['rms']:.3f} / {figures['pixels']:.3f}" if figures else "-"

    print_table(METHODS, {f"{lines} x 24": [cell(row.get(m)) for m in METHODS] for lines, row in rows.items()})


def print_volume(rows: dict[str, Any]) -> None:
    for coils, row in rows.items():
        table = {f"{coils}, {name}": [f"{v['cpu_seconds']:.2f}", f"{v['rms']:.4f}"] for name, v in row.items()}
        print_table(["CPU s", "rms"], table)


def print_reconstructions(rows: dict[str, Any]) -> None:
    for name, table in rows.items():
        print_table(METHODS, {f"{name}, {case}": [row.get(m, np.nan) for m in METHODS] for case, row in table.items()})


PRINTED = {
    "maps": print_maps,
    "small regions": print_regions,
    "volume": print_volume,
    "reconstructions": print_reconstructions,
}


def main() -> None:
    p = parser(__doc__, prior=False)
    p.add_argument("--parts", nargs="+", choices=PRINTED, default=list(PRINTED), help="tables to measure (default all)")
    args = p.parse_args()
    stored = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    figures: dict[str, Any] = {name: stored[name] for name in PRINTED if name in stored}
    measured = brains(args.data)
    cases: dict[str, tuple[np.ndarray, np.ndarray | None]] = {name: (ksp, None) for name, ksp in measured.items()}
    cases |= {f"phantom, {n} coils": (simulated(n), coil_maps(n, (256, 256))) for n in (8, 16, 32)}
    measure: dict[str, Callable[[], Any]] = {
        "maps": lambda: {name: compare(name, *case) for name, case in cases.items()},
        "small regions": lambda: small_regions(*cases["phantom, 8 coils"]),  # type: ignore[arg-type]
        "volume": lambda: {f"{coils} coils": volume(coils) for coils in (8, 16)},
        "reconstructions": lambda: {name: reconstructions(ksp) for name, ksp in measured.items()},
    }
    for part in args.parts:
        figures[part] = measure[part]()
        print(f"\n{part}\n")
        PRINTED[part](figures[part])
    report(args, figures)


if __name__ == "__main__":
    main()
