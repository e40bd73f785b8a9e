"""Linear operators: SENSE and FFT for slices and volumes, views of the high-dimensional embedding, flips, stacks."""

from hggdp_plugin.linops.flips import flips, slice_stacks
from hggdp_plugin.linops.fourier import FFT, FFT2
from hggdp_plugin.linops.sense import Sense, SenseNormal, kspace_diagonal
from hggdp_plugin.linops.stacked import Stacked
from hggdp_plugin.linops.views import Replicate

__all__ = ["FFT", "FFT2", "Replicate", "Sense", "SenseNormal", "Stacked", "flips", "kspace_diagonal", "slice_stacks"]
