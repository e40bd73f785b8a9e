"""
Multi-coil reconstruction
=========================

:class:`~hggdp_plugin.HGGDPRecon` is a SigPy app. It stands where :class:`sigpy.mri.app.L1WaveletRecon` stood, without
its regularization weight: there is nothing to tune, and what follows ``mps`` is given by name.
"""

# %%
# The scan
# --------
# We simulate a head phantom seen by eight coils, add noise, and keep one sixth of k-space: a variable-density
# Poisson-disc pattern with a fully sampled center.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.figures import comparison
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom

image = head_phantom((256, 256))[0]
mask = mr.poisson(image.shape, accel=6, calib=(24, 24), seed=0)
ksp = sp.fft(coil_maps(8, image.shape) * image, axes=(-2, -1))
ksp = mask * (ksp + 0.01 * complex_normal(np.random.default_rng(0), ksp.shape))

# %%
# Coil sensitivity maps
# ---------------------
# ESPIRiT estimates the maps from the fully sampled center of k-space.

mps = mr.app.EspiritCalib(ksp, show_pbar=False).run()

# %%
# Reconstruction
# --------------
# The zeros of ``ksp`` say what was not sampled; the intensity scale and the noise level are estimated from the data.
# For comparison, SigPy's own reconstructions: SENSE, and L1-wavelet with a weight chosen by hand.

img = HGGDPRecon(ksp, mps, show_pbar=False).run()

sense = mr.app.SenseRecon(ksp, mps, lamda=0.01, show_pbar=False).run()
wavelet = mr.app.L1WaveletRecon(ksp, mps, lamda=0.004, show_pbar=False).run()

# %%
# The second row shows the errors, five times brighter.

images = {"SENSE": sense, "L1-wavelet": wavelet, "HGGDPRecon": img}
comparison(images, image, figure=plt.figure())
plt.show()
