"""
Volumes
=======

Three-dimensional trajectories that cannot be split into slices: ``coord`` with three columns, in units of one over the
field of view.
"""

# %%
# The scan
# --------
# A kooshball of 300 spokes in all directions, a fifth of what the Nyquist criterion asks for, with eight coils and noise.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon, NoiseSchedule
from hggdp_plugin.figures import comparison
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import kooshball_trajectory

volume = head_phantom((32, 32), num_slices=24, seed=2)  # voxels of 7 x 7 x 5 mm
volume = sp.resize(volume, (32, 32, 32))
mps = mr.birdcage_maps((8, *volume.shape)).astype(np.complex64)
coord = 32 * kooshball_trajectory(300, 64)  # (spokes, samples, 3), from -16 to 16
ksp = sp.nufft(mps * volume, coord, oversamp=2, width=6)  # (coils, spokes, samples)
ksp += 0.01 * complex_normal(np.random.default_rng(0), ksp.shape)

# %%
# Reconstruction
# --------------
# Data consistency is that of the volume. The prior is the one for slices: at every step it denoises all slices across
# another of the three axes. Half of the usual noise levels are enough to see it.

schedule = NoiseSchedule.fast(levels=12)
img = HGGDPRecon(ksp, mps, coord=coord, schedule=schedule, show_pbar=False).run()

density = np.linalg.norm(coord, axis=-1) ** 2
gridded = np.sum(mps.conj() * sp.nufft_adjoint(ksp * density, coord, mps.shape), axis=0)

# %%
# One slice across each of the axes:

for axis in range(3):
    images = {"gridded": gridded, "HGGDPRecon": img}
    images = {name: np.take(image, 16, axis) for name, image in images.items()}
    comparison(images, np.take(volume, 16, axis), figure=plt.figure())
    plt.show()
