"""A cluster that all tests share, and what one process makes of the scans."""

import numpy as np
import pytest
from dask_processes import FILES, DaskProcesses, method, write_scan

from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.models.unet import UNet


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    with DaskProcesses("", tmp_path_factory.mktemp("dask")) as processes:
        yield processes


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Three files of two slices, a prior, and the images that one process makes of them."""
    folder = tmp_path_factory.mktemp("scans")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    rng = np.random.default_rng(0)
    for name in FILES:
        write_scan(folder / f"{name}.npy", rng)
    paths = [str(folder / f"{name}.npy") for name in FILES]
    assert main([*paths, "--output-dir", str(folder / "single"), *method(folder), "-q"]) == 0
    return folder
