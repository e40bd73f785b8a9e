"""Undersampled multi-coil k-space to an image, in a SigPy script."""

import sigpy as sp
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon
from hggdp_plugin.simulation import coil_maps, head_phantom

image = head_phantom((256, 256))[0]
mask = mr.poisson(image.shape, accel=6, calib=(24, 24))
ksp = mask * sp.fft(coil_maps(8, image.shape) * image, axes=(-2, -1))

mps = mr.app.EspiritCalib(ksp).run()
recon = HGGDPRecon(ksp, mps).run()  # where mr.app.L1WaveletRecon(ksp, mps, lamda).run() stood
print(recon.shape, recon.dtype)
