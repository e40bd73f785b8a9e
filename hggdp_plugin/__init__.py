"""Reconstruction of undersampled MRI with a learned score prior (HGGDP), for SigPy.

The public names are listed in ``__init__.pyi``. They are loaded on first use, because SigPy and PyTorch take seconds.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
