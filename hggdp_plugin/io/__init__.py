"""Read raw data, k-space and images; write images. The format follows from the file's suffix.

The public names are listed in ``__init__.pyi``. They are loaded on first use, because SigPy takes seconds to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
