"""
Single-coil reconstruction
==========================

One coil, or coil-combined k-space, needs no sensitivity maps: ``HGGDPRecon(ksp)`` is enough. This is the setting of the
HGGDP paper.
"""

# %%
# The scan
# --------
# Cartesian lines at random, denser at the center: one third of k-space. Here the image has a smooth phase, as measured
# images do.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.figures import comparison
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import random_lines

image = head_phantom((256, 256), seed=1)[0]
mask = random_lines(256, accel=3, calib=20, seed=0)[:, None]
ksp = (mask * sp.fft(image)).astype(np.complex64)[None]  # (coils, ky, kx): one coil

# %%
# Reconstruction
# --------------
# With one coil on a Cartesian grid the data are taken as exact by default: measured samples are not changed. Give
# ``noise_var`` if they are noisy.

img = HGGDPRecon(ksp, show_pbar=False).run()

mps = np.ones_like(ksp)
zero_filled = sp.ifft(ksp[0])
tv = mr.app.TotalVariationRecon(
    ksp, mps, lamda=0.01, max_iter=200, show_pbar=False
).run()

# %%

images = {"zero-filled": zero_filled, "total variation": tv, "HGGDPRecon": img}
comparison(images, image, figure=plt.figure())
plt.show()

# %%
# The measured samples are still there:

error = np.linalg.norm(mask * sp.fft(img) - ksp[0]) / np.linalg.norm(ksp)
print(f"relative error of the measured samples: {error:.1e}")
