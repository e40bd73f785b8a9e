"""Peak memory of ``hggdp recon`` on a volume of many slices and coils, and of reading it.

A phantom of 64 slices, 16 coils, 256 x 256, a third of the lines, its k-space 512 MiB; every command in a process of
its own. Two noise levels, for memory does not depend on their number; time does. Needs 1 GB of disk in TMPDIR.

    python benchmarks/memory.py --json memory.json
"""

import tempfile
from pathlib import Path

import numpy as np
import sigpy as sp
from common import elsewhere, parser, peak_memory, print_table, report

from hggdp_plugin.simulation import coil_maps, head_phantom, masks, write_raw
from hggdp_plugin.simulation.acquire import SimulatedScan

READ = "import sys; from hggdp_plugin import io; raw = io.read_raw(sys.argv[1])"


def write_volume(
    path: Path, slices: int, coils: int, size: int, accel: float = 3, calib: int | None = None, noise_scan: bool = False
) -> None:
    """A head phantom, moved by a pixel from slice to slice, with noise."""
    calib = calib or size // 10
    image, maps = head_phantom((size, size), num_slices=1)[0], coil_maps(coils, (size, size))
    images = np.stack([np.roll(image, s, axis=0) for s in range(slices)]).astype(np.complex64)
    ky, is_calib = np.flatnonzero(masks.random_lines(size, accel, calib)), np.zeros(size, bool)
    is_calib[masks.center(size, calib)] = True
    rng = np.random.default_rng(0)

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        return 0.01 * (rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32))

    lines = np.stack([sp.fft(maps * one, axes=(-2, -1))[:, ky] for one in images])
    lines += noise(lines.shape)
    scan = SimulatedScan(
        data=lines,
        ky=ky,
        center_ky=size // 2,
        center_sample=size // 2,
        is_calib=is_calib[ky],
        encoded_matrix=(size, size),
        matrix=(size, size),
        noise=noise((coils, 2048)) if noise_scan else None,
    )
    write_raw(path, scan, images, {})


def main() -> None:
    p = parser(__doc__)
    for name, default in {"slices": 64, "coils": 16, "size": 256}.items():
        p.add_argument(f"--{name}", type=int, default=default)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw, out = str(Path(folder) / "raw.h5"), str(Path(folder) / "out.h5")
        elsewhere(write_volume, Path(raw), args.slices, args.coils, args.size)
        prior = ["--prior", args.prior] if args.prior else []
        commands = {
            "Python, imports": ["-c", "from hggdp_plugin import HGGDPRecon, io"],
            "reading": ["-c", READ, raw],
            "hggdp recon -N 2": ["-m", "hggdp_plugin.apps.recon", raw, "-o", out, "-N", "2", *prior],
        }
        rows = {name: list(peak_memory(*command)[:2]) for name, command in commands.items()}
    kspace = args.slices * args.coils * args.size**2 * 8 / 2**20
    print_table(["peak memory (MiB)", "seconds"], rows)
    print(f"\nk-space: {kspace:.0f} MiB")
    volume = {name: getattr(args, name) for name in ("slices", "coils", "size")}
    report(args, {"volume": volume, "kspace": kspace, "columns": ["peak memory (MiB)", "seconds"], "commands": rows})


if __name__ == "__main__":
    main()
