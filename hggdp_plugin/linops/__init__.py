"""Linear operators: SENSE for batches of slices, and the views of the high-dimensional embedding."""

from hggdp_plugin.linops.sense import Sense
from hggdp_plugin.linops.views import Replicate

__all__ = ["Replicate", "Sense"]
