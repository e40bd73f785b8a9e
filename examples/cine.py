"""
A series of frames
==================

Leading axes of k-space are slices or frames. They go through the network as one batch, and each frame is reconstructed
on its own. What the frames share, the coil sensitivity maps, is estimated from all of them.
"""

# %%
# The scan
# --------
# A phantom whose center expands and contracts, in 16 frames with 8 coils. Each frame has every third line, shifted by
# one line from frame to frame, so that three frames together have them all. There are no calibration lines.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr
from scipy.ndimage import map_coordinates

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.figures import comparison
from hggdp_plugin.metrics import score
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import uniform_lines

n_frames, shape = 16, (128, 128)
phantom = head_phantom(shape)[0]
y, x = np.indices(shape) - 64.0
pulse = 0.4 * np.exp(-(x**2 + y**2) / 20**2)


def frame(phase):
    zoom = 1 - pulse * np.sin(phase)
    coordinates = [64 + y * zoom, 64 + x * zoom]
    return map_coordinates(phantom, coordinates, order=3, prefilter=True)


phases = 2 * np.pi * np.arange(n_frames) / n_frames
image = np.stack([frame(phase) for phase in phases]).astype(np.complex64)

lines = np.stack([np.roll(uniform_lines(128, accel=3), t) for t in range(n_frames)])
mask = lines[:, None, :, None]  # (frames, 1, ky, 1)
full = sp.fft(coil_maps(8, shape) * image[:, None], axes=(-2, -1))
noise = 0.01 * complex_normal(np.random.default_rng(0), full.shape)
ksp = (mask * (full + noise)).astype(np.complex64)  # (frames, coils, ky, kx)

# %%
# Coil sensitivity maps
# ---------------------
# The mean over time of the samples of each line is fully sampled. ``hggdp recon`` does the same with a dynamic scan.

mean = ksp.sum(axis=0) / mask.sum(axis=0)
mps = espirit_maps(mean, 24)

# %%
# Reconstruction
# --------------
# For comparison, SENSE frame by frame with the same maps.

img = HGGDPRecon(ksp, mps, show_pbar=False).run()

sense = np.stack(
    [mr.app.SenseRecon(y, mps, lamda=0.001, show_pbar=False).run() for y in ksp]
)
images = {"SENSE": sense[4], "HGGDPRecon": img[4]}
comparison(images, image[4], figure=plt.figure())
plt.show()

# %%
# The signal along one line of the image, frame by frame: time runs to the right.

fig, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
for axis, (name, series) in zip(
    axes, {"reference": image, "SENSE": sense, "HGGDPRecon": img}.items(), strict=True
):
    axis.imshow(np.abs(series[:, :, 64]).T, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axis.set(title=name, xlabel="frame", yticks=[])
plt.show()

# %%

for name, series in {"SENSE": sense, "HGGDPRecon": img}.items():
    psnr = [score(a, b).psnr for a, b in zip(series, image, strict=True)]
    print(f"{name}: {np.mean(psnr):.1f} dB")
