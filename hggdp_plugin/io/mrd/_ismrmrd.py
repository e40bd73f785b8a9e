"""The ismrmrd package, without its side effect: on import it resets the warning filters of the interpreter."""

import warnings

with warnings.catch_warnings():
    import ismrmrd
    from ismrmrd import constants
    from ismrmrd.hdf5 import acquisition_header_dtype, image_header_dtype

__all__ = ["acquisition_header_dtype", "constants", "image_header_dtype", "ismrmrd"]
