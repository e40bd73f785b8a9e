"""Pack training images to carry them to a machine with a GPU: coarser gray levels, and some set aside to validate on.

Intensities are rounded to steps below the noise of the images, which lets them compress to about half. The last
slices of every domain, which are of other subjects than the rest, are for validation.

    python benchmarks/pack_images.py --data ../shared/data --out packed
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
from common import need, parser
from scans import set_aside_names, spread

#: Rounding of intensities, relative to the maximum of an image.
COMPLEX_STEP, MAGNITUDE_STEP = 1 / 60, 1 / 90
#: Slices of a domain at most: those of T2 brains, and of each other domain.
MOST_T2, MOST = 200, 105
OPTIONS = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


def pack_complex(source: Path, target: Path, most: int) -> None:
    with h5py.File(source) as file, h5py.File(target, "w") as packed:
        step = file["image"].attrs["step"]
        values = np.rint(file["image"][spread(list(range(len(file["image"]))), most)] * (step / COMPLEX_STEP)).astype(
            np.int16
        )
        dataset = packed.create_dataset("image", data=values, chunks=(1, *values.shape[1:]), **OPTIONS)
        dataset.attrs["step"] = COMPLEX_STEP


def pack_magnitude(source: Path, training: Path, validation: Path) -> None:
    with h5py.File(source) as file, h5py.File(training, "w") as train, h5py.File(validation, "w") as val:
        for name, group in file.items():
            aside = set_aside_names(list(group))
            rest = sorted(set(group) - set(aside))
            for packed, chosen in ((train, spread(rest, MOST)), (val, spread(aside, 4))):
                domain = packed.create_group(name)
                domain.attrs["step"] = MAGNITUDE_STEP
                for key in chosen:
                    values = group[key][()] * (group.attrs["step"] / MAGNITUDE_STEP)
                    domain.create_dataset(key, data=np.rint(values).astype(np.uint16), **OPTIONS)


def main() -> None:
    p: argparse.ArgumentParser = parser(__doc__, prior=False)
    p.add_argument("--out", type=Path, required=True, help="folder for the packed files")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pack_complex(need(args.data / "siat_train.h5"), args.out / "train_brain_t2.h5", MOST_T2)
    pack_complex(need(args.data / "siat_val.h5"), args.out / "val_brain_t2.h5", 12)
    pack_magnitude(need(args.data / "mr_train.h5"), args.out / "train_others.h5", args.out / "val_others.h5")
    for path in sorted(args.out.glob("*.h5")):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
