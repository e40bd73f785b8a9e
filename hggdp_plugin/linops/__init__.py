"""Linear operators: SENSE for batches of slices, the views of the high-dimensional embedding, flips and turns."""

from hggdp_plugin.linops.sense import Sense
from hggdp_plugin.linops.turns import turns
from hggdp_plugin.linops.views import Replicate

__all__ = ["Replicate", "Sense", "turns"]
