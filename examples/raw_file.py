"""
From a raw data file
====================

``hggdp recon raw.h5`` does all of this with one command. From Python you can look at each step: what was read, the
sampling mask, the coil sensitivity maps.
"""

# %%
# The file
# --------
# We simulate the scan: 8 coils, one third of the lines, 24 calibration lines, readout oversampling and a noise scan, as
# scanners measure them.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp

from hggdp_plugin import HGGDPRecon, io
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.figures import comparison
from hggdp_plugin.simulation import (
    ScanProtocol,
    acquire,
    head_phantom,
    make_source,
    write_raw,
)

folder = TemporaryDirectory()
path = Path(folder.name) / "raw.h5"

source = make_source(head_phantom((256, 256)), "image", num_coils=8)
protocol = ScanProtocol(
    mask="random", accel=3, calib=24, snr=30, noise_scan=True, oversampling=2
)
write_raw(path, acquire(source.ksp, source.image, protocol), source.image, {})

# %%
# Reading
# -------
# ``read_raw`` sorts the acquisitions of an ISMRMRD file, prewhitens them with the noise scan, and removes the readout
# oversampling.

raw = io.read_raw(path)
print(raw.summary())

# %%
# k-space has the axes (repetition, contrast, phase, set, slice, coil, ky, kx). ``mask`` says what was measured.

frame = (0, 0, 0, 0, 0)
ksp, mask = raw.ksp[frame], raw.mask[frame]

fig, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
axes[0].imshow(np.log1p(np.abs(ksp[0])), cmap="gray")
axes[0].set_title("log of k-space, first coil")
axes[1].imshow(mask, cmap="gray", aspect="auto", interpolation="nearest")
axes[1].set_title("mask")
for axis in axes:
    axis.set(xlabel="kx", ylabel="ky")
plt.show()

# %%
# Coil sensitivity maps
# ---------------------
# The calibration region may be larger than what the image lines have: some scans measure it separately.

mps = espirit_maps(raw.calib[0], 24)

fig, axes = plt.subplots(1, len(mps), figsize=(9, 1.4), layout="constrained")
for axis, coil_map in zip(axes, mps, strict=True):
    axis.imshow(np.abs(coil_map), cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
plt.show()

# %%
# Reconstruction
# --------------
# Prewhitened data have noise of variance 1. Half of it gives the best PSNR, which is what ``hggdp recon`` uses.

img = HGGDPRecon(ksp, mps, noise_var=0.5, weights=mask, show_pbar=False).run()

# %%

zero_filled = np.sum(mps.conj() * sp.ifft(ksp, axes=(-2, -1)), axis=0)
images = {"zero-filled": zero_filled, "HGGDPRecon": img}
comparison(images, source.image[0], figure=plt.figure())
plt.show()

# %%
# Writing
# -------
# ``write_image`` chooses the format by the suffix; position and orientation come from the headers.

image_path = Path(folder.name) / "image.nii.gz"
io.write_image(image_path, img, raw=raw)
print(io.read_images(image_path).shape)

folder.cleanup()
# sphinx_gallery_thumbnail_number = -1
