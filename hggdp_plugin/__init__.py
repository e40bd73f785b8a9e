"""Reconstruction of undersampled MRI with a learned score prior (HGGDP), for SigPy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hggdp_plugin.alg import AnnealedLangevin
    from hggdp_plugin.app import HGGDPRecon
    from hggdp_plugin.checkpoint import bundled_priors
    from hggdp_plugin.prior import ScorePrior, load_prior
    from hggdp_plugin.prox import L2DataConsistency
    from hggdp_plugin.schedule import NoiseSchedule

__version__ = "0.1.0"
__all__ = [
    "AnnealedLangevin",
    "HGGDPRecon",
    "L2DataConsistency",
    "NoiseSchedule",
    "ScorePrior",
    "bundled_priors",
    "load_prior",
]

# Loaded on first use: SigPy and torch, which SigPy imports where it finds it, take seconds.
_HOMES = {
    "AnnealedLangevin": "alg",
    "HGGDPRecon": "app",
    "L2DataConsistency": "prox",
    "NoiseSchedule": "schedule",
    "ScorePrior": "prior",
    "bundled_priors": "checkpoint",
    "load_prior": "prior",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
