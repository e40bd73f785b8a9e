"""
Radial reconstruction
=====================

Non-Cartesian k-space comes with its coordinates: ``coord``, in units of one over the field of view, as everywhere in
SigPy.
"""

# %%
# The scan
# --------
# 40 golden-angle spokes of eight coils: one tenth of what the Nyquist criterion asks for. The samples are computed by
# SigPy's non-uniform FFT, and have noise.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.figures import comparison
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import radial_trajectory

image = head_phantom((256, 256), seed=2)[0]
mps = coil_maps(8, image.shape)
coord = 256 * radial_trajectory(40, 512)  # (spokes, samples, 2), from -128 to 128
ksp = sp.nufft(mps * image, coord)  # (coils, spokes, samples)
ksp += 0.01 * complex_normal(np.random.default_rng(0), ksp.shape)

plt.figure(figsize=(3, 3), layout="constrained")
plt.plot(*coord[::4].transpose(2, 1, 0), "k-", linewidth=0.5)
plt.axis("equal")
plt.title("every fourth spoke")
plt.show()

# %%
# Reconstruction
# --------------
# Density compensation is not needed: the samples enter a least-squares data consistency. The gridded image, shown for
# comparison, needs it.

img = HGGDPRecon(ksp, mps, coord=coord, show_pbar=False).run()

density = np.linalg.norm(coord, axis=-1)
gridded = np.sum(mps.conj() * sp.nufft_adjoint(ksp * density, coord, mps.shape), axis=0)
sense = mr.app.SenseRecon(
    ksp, mps, coord=coord, lamda=0.01, max_iter=20, show_pbar=False
).run()

# %%

images = {"gridded": gridded, "SENSE": sense, "HGGDPRecon": img}
comparison(images, image, figure=plt.figure())
plt.show()
# sphinx_gallery_thumbnail_number = -1
