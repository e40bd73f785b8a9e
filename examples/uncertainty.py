"""
How wrong is it?
================

A map of the standard error beside the image. The scan is repeated eight times with the reconstruction as the object,
flipped, turned and shifted, and with new noise; what comes out wrong there is probably wrong here.
"""

# %%
# The scan
# --------
# A phantom with 8 coils, random lines, a quarter of k-space, and noise.

import matplotlib.pyplot as plt
import numpy as np
import sigpy as sp

from hggdp_plugin import HGGDPRecon, UncertaintyMap
from hggdp_plugin.figures import comparison
from hggdp_plugin.random import complex_normal
from hggdp_plugin.simulation import coil_maps, head_phantom
from hggdp_plugin.simulation.masks import random_lines
from hggdp_plugin.uncertainty import local_signal, object_mask

shape = (160, 160)
image = head_phantom(shape)[0]
mps = coil_maps(8, shape)
full = sp.fft(mps * image, axes=(-2, -1))
noise = 0.01 * complex_normal(np.random.default_rng(0), full.shape)
ksp = (full + noise) * random_lines(160, 4, 16)[:, None]

# %%
# Image and map
# -------------
# The app of the map takes that of the reconstruction. The repeated reconstructions have fewer noise levels, and go
# through the network together.

app = HGGDPRecon(ksp.astype(np.complex64), mps, show_pbar=False)
reconstruction = app.run()
uncertainty = UncertaintyMap(app, show_pbar=False)
std = uncertainty.run()

zero_filled = (mps.conj() * sp.ifft(ksp, axes=(-2, -1))).sum(axis=0)
images = {"zero-filled": zero_filled, "HGGDPRecon": reconstruction}
comparison(images, image, figure=plt.figure())
plt.show()

# %%

found = uncertainty.result
print(
    f"expected PSNR {found.psnr:.1f} dB, above {found.psnr_bound:.1f} dB in nine of ten slices"
)
print(
    f"standard error above 10 % of the signal in {100 * found.large_share:.0f} % of the object"
)

# %%
# The true error is known here. The map says where it is and how large it is on the mean, not what it is: an error at a
# pixel is a draw from a distribution that has the map as its width.

error = abs(reconstruction - image)
top = np.percentile(error, 99.5)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
axes[0].imshow(abs(reconstruction), cmap="gray", vmin=0, vmax=1)
axes[0].set_title("reconstruction")
for axis, values, title in (
    (axes[1], std, "standard error"),
    (axes[2], error, "true error"),
):
    shown = axis.imshow(values, cmap="inferno", vmin=0, vmax=top)
    axis.set_title(title)
figure.colorbar(shown, ax=axes[1:], extend="max", shrink=0.8)
for axis in axes:
    axis.set_axis_off()
plt.show()

# %%
# In numbers
# ----------
# The pixels of the object in ten groups by the map: root mean square of the predicted and of the true error. A phantom
# is unlike the images that the factor in the map was learned on, so they need not agree.

inside = object_mask(abs(reconstruction))
order = np.argsort(std[inside])
for group in np.array_split(order, 10):
    predicted, true = (
        np.sqrt(np.mean(values[inside][group] ** 2)) for values in (std, error)
    )
    print(f"{predicted:.4f}  {true:.4f}")

# %%
# Where the error is large compared with the signal, an image should not be believed without another look.

figure, axis = plt.subplots(figsize=(3.6, 3.6), layout="constrained")
axis.imshow(abs(reconstruction), cmap="gray", vmin=0, vmax=1)
axis.contour(
    std > 0.1 * local_signal(abs(reconstruction)),
    levels=[0.5],
    colors="orange",
    linewidths=0.8,
)
axis.set_title("standard error above 10 %")
axis.set_axis_off()
plt.show()
