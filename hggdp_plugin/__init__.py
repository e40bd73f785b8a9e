"""Reconstruction of undersampled MRI with a learned score prior (HGGDP), for SigPy."""

__version__ = "0.1.0"
