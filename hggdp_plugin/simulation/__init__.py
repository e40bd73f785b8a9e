"""Simulated measurements: a head phantom, coils, sampling patterns, noise, and the raw files that hold them."""

from hggdp_plugin.simulation.acquire import Measurement, Protocol, acquire
from hggdp_plugin.simulation.coils import coil_maps, combine
from hggdp_plugin.simulation.phantom import head_phantom
from hggdp_plugin.simulation.rawfile import REFERENCE, Geometry, write_raw
from hggdp_plugin.simulation.source import Source, from_bart, guess_kind, make_source

__all__ = [
    "REFERENCE",
    "Geometry",
    "Measurement",
    "Protocol",
    "Source",
    "acquire",
    "coil_maps",
    "combine",
    "from_bart",
    "guess_kind",
    "head_phantom",
    "make_source",
    "write_raw",
]
