"""Files in and out: ISMRMRD raw data and images, k-space arrays, BART cfl, NIfTI, NumPy, PNG - chosen by suffix."""

from hggdp_plugin.io.files import InputError, check_output
from hggdp_plugin.io.images import read_array, read_images, write_image
from hggdp_plugin.io.kspace import ARRAY_SUFFIXES, read_kspace, read_maps
from hggdp_plugin.io.mrd.reader import read_raw
from hggdp_plugin.io.raw import Geometry, RawData

__all__ = [
    "ARRAY_SUFFIXES",
    "Geometry",
    "InputError",
    "RawData",
    "check_output",
    "read_array",
    "read_images",
    "read_kspace",
    "read_maps",
    "read_raw",
    "write_image",
]
