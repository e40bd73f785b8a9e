"""The README's example: quality beside zero-filled and SENSE, wall time of the whole command, and the picture.

python benchmarks/example.py --json example.json --figure example.png
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import sigpy.mri as mr
from common import parser, print_table, report

from hggdp_plugin import io
from hggdp_plugin.figures import comparison
from hggdp_plugin.metrics import score
from hggdp_plugin.volume.calibration import estimate_maps

RAW = Path(__file__).parent.parent / "examples" / "phantom.h5"


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--figure", type=Path, help="picture to write (.png)")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.npy"
        command = [sys.executable, "-m", "hggdp_plugin.apps.recon", str(RAW), "-o", str(output), "-q"]
        if args.prior:
            command += ["--prior", args.prior]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        ours = np.load(output).squeeze()
    raw = io.read_raw(RAW)
    ksp, mps = raw.ksp[0, 0, 0, 0, 0], estimate_maps(raw)[0]
    with h5py.File(RAW) as file:
        reference = file["reference/image"][0]
    images = {
        "zero-filled": mr.linop.Sense(mps).H(ksp),
        "SENSE (SigPy)": mr.app.SenseRecon(ksp, mps, lamda=0.01, show_pbar=False).run(),
        "HGGDPRecon": ours,
    }
    scores = {name: score(np.abs(image), np.abs(reference)) for name, image in images.items()}
    print_table(["PSNR (dB)", "SSIM", "HFEN"], {name: [s.psnr, s.ssim, s.hfen] for name, s in scores.items()})
    print(f"\nhggdp recon: {seconds:.1f} s, interpreter and imports included")
    if args.figure:
        comparison(images, reference).savefig(args.figure, dpi=110)
    figures = {name: {"psnr": s.psnr, "ssim": s.ssim, "hfen": s.hfen} for name, s in scores.items()}
    report(args, {"seconds": seconds, "methods": figures})


if __name__ == "__main__":
    main()
