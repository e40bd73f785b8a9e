"""Makes examples/phantom.h5: a simulated 8-coil brain measurement, 3 times undersampled, as an ISMRMRD raw file.

Readout oversampling, a noise scan and 24 calibration lines are in it as in a scanner's file, and beside them the fully
sampled image that it was made of (reference/image). The same seed gives the same data.
"""

from dataclasses import asdict
from pathlib import Path

from hggdp_plugin.io.files import replacing
from hggdp_plugin.simulation import (
    ScanProtocol,
    acquire,
    head_phantom,
    make_source,
    write_raw,
)

OUTPUT = Path(__file__).with_name("phantom.h5")


def main() -> None:
    protocol = ScanProtocol(
        mask="random",
        accel=3,
        calib=24,
        seed=1,
        snr=30,
        noise_scan=True,
        oversampling=2,
    )
    source = make_source(head_phantom((256, 256), seed=0), "image", num_coils=8)
    measurement = acquire(source.ksp, source.image, protocol)
    notes = {
        "source": "head_phantom",
        "combination": source.combination,
        "net_accel": measurement.accel,
    }
    with replacing(OUTPUT) as path:
        write_raw(path, measurement, source.image, notes | asdict(protocol))
    print(
        f"{OUTPUT}: {OUTPUT.stat().st_size / 1e6:.1f} MB, net acceleration {measurement.accel:.2f}"
    )


if __name__ == "__main__":
    main()
