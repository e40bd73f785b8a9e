"""Simulated scans: a head phantom, coils, sampling patterns, noise, and the raw files that contain them."""

from hggdp_plugin.simulation.acquire import ScanProtocol, SimulatedScan, acquire
from hggdp_plugin.simulation.coils import coil_maps, combine
from hggdp_plugin.simulation.phantom import head_phantom
from hggdp_plugin.simulation.rawfile import REFERENCE, ScanGeometry, write_raw
from hggdp_plugin.simulation.source import Source, make_source

__all__ = [
    "REFERENCE",
    "ScanGeometry",
    "ScanProtocol",
    "SimulatedScan",
    "Source",
    "acquire",
    "coil_maps",
    "combine",
    "head_phantom",
    "make_source",
    "write_raw",
]
