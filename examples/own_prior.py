"""
Training a prior
================

A prior of your own images, in a few lines. This one is tiny and is trained for a few seconds, to show the way; a prior
that is good for more than phantoms takes hours (``hggdp train --help``).
"""

# %%
# Images
# ------
# Files or folders with fully sampled raw data or complex images are what training needs. Here: 32 head phantoms, each
# with another anatomy and phase.

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon, load_prior
from hggdp_plugin.figures import comparison
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import random_points
from hggdp_plugin.training.config import TrainConfig
from hggdp_plugin.training.run import train

shape = (128, 128)
folder = TemporaryDirectory()
path = Path(folder.name)
phantoms = np.concatenate([head_phantom(shape, seed=seed) for seed in range(1, 33)])
np.save(path / "phantoms.npy", phantoms)

fig, axes = plt.subplots(1, 8, figsize=(9, 1.3), layout="constrained")
for axis, phantom in zip(axes, phantoms, strict=False):
    axis.imshow(np.abs(phantom), cmap="gray")
    axis.set_axis_off()
plt.show()

# %%
# Training
# --------
# ``TrainConfig`` has all that ``hggdp train`` has. ``init="brain-t2"`` would start from the bundled prior.

config = TrainConfig(
    data=[path],
    output=path / "phantoms.safetensors",
    widths=(32,),
    steps=600,
    warmup=20,
    batch_size=8,
    crop=32,
    rollouts=0,
    learning_rate=6e-3,
)
train(config)

# %%
# Reconstruction
# --------------
# A phantom that was not among the training images, one coil, a third of k-space.

image = head_phantom(shape, seed=0)[0]
mask = random_points(shape, accel=3, calib=16)
ksp = (mask * sp.fft(image)).astype(np.complex64)[None]

prior = load_prior(config.output)
img = HGGDPRecon(ksp, prior=prior, show_pbar=False).run()

ones = np.ones_like(ksp)
wavelet = mr.app.L1WaveletRecon(ksp, ones, lamda=0.005, show_pbar=False).run()
images = {"zero-filled": sp.ifft(ksp[0]), "L1-wavelet": wavelet, "own prior": img}
comparison(images, image, figure=plt.figure())
plt.show()

folder.cleanup()
# sphinx_gallery_thumbnail_number = -1
