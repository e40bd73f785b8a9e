"""
The prior as a proximal operator
================================

:class:`~hggdp_plugin.ScorePrior` is a :class:`sigpy.prox.Prox`. Any SigPy app or algorithm that accepts a proximal
operator can use the learned prior, in the way of plug-and-play methods.
"""

# %%
# A denoiser
# ----------
# The prior's network removes white noise of a known level from complex images whose maximum magnitude is about 1.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import load_prior
from hggdp_plugin.figures import comparison
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom

rng = np.random.default_rng(0)
image = head_phantom((192, 192))[0]
prior = load_prior(lamda=3e-4)

sigma = 0.1  # standard deviation of the real and of the imaginary part
noisy = image + sigma * complex_normal(rng, image.shape)
images = {"noisy": noisy, "denoised": prior.denoise(noisy, sigma)}
comparison(images, image, figure=plt.figure())
plt.show()

# %%
# The score, the gradient of the log of the prior's density, follows from it (Tweedie's formula). It points from the
# noisy image to cleaner ones.

score = prior.score(noisy, sigma)
print(np.allclose(noisy + sigma**2 * score, prior.denoise(noisy, sigma), atol=1e-4))

# %%
# Plug and play
# -------------
# ``prior(alpha, x)`` denoises at the noise level ``sqrt(lamda * alpha)``. SigPy's proximal gradient method passes its
# step size as ``alpha``. We scale k-space so that the image's maximum is about 1.

mask = mr.poisson(image.shape, accel=8, calib=(20, 20), seed=0)
mps = coil_maps(8, image.shape)
y = sp.fft(mps * image, axes=(-2, -1)).astype(np.complex64)
y = mask * (y + 0.01 * complex_normal(rng, y.shape))

A = mr.linop.Sense(mps, weights=mask)
img = sp.app.LinearLeastSquares(A, y, proxg=prior, max_iter=20, show_pbar=False).run()

# %%
# Beside it an L1-wavelet regularization in the same app:

W = sp.linop.Wavelet(image.shape, wave_name="db4")
wavelet = sp.app.LinearLeastSquares(
    A,
    y,
    proxg=sp.prox.UnitaryTransform(sp.prox.L1Reg(W.oshape, 0.004), W),
    max_iter=100,
    show_pbar=False,
).run()
images = {"zero-filled": A.H(y), "L1-wavelet": wavelet, "learned prior": img}
comparison(images, image, figure=plt.figure())
plt.show()
# sphinx_gallery_thumbnail_number = -1
