"""Coils in several processes, with real ones: the image of one process, and no process waits for one that failed."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mpi_ranks
import numpy as np
import pytest
import torch
from helpers import relative_error

MPIRUN = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

pytestmark = [
    pytest.mark.skipif(MPIRUN is None, reason="needs mpirun: pip install mpich, or Open MPI of the system"),
    pytest.mark.skipif(find_spec("mpi4py") is None, reason="needs mpi4py: pip install 'hggdp_plugin[mpi]'"),
]

#: Open MPI refuses root, as whom containers often run, and more processes than cores.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [MPIRUN, "-n", "2", sys.executable, mpi_ranks.__file__, folder],
        env=os.environ | OPEN_MPI | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranks = [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]
    assert [int(rank["size"]) for rank in ranks] == [2, 2]
    return ranks


@pytest.mark.parametrize("name", ["cartesian", "noise_var", "slices", "radial"])
def test_two_processes_give_the_image_of_one(ranks, name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        image, noise_var = mpi_ranks.recon(None, name)
    finally:
        torch.set_num_threads(threads)
    first, second = (rank[name] for rank in ranks)
    np.testing.assert_array_equal(first, second)
    # Conjugate gradients off the Cartesian grid enlarge the rounding.
    assert relative_error(first, image) < (3e-4 if name == "radial" else 1e-5)
    np.testing.assert_allclose(ranks[0][f"{name}_noise_var"], noise_var, rtol=1e-5)


def test_no_process_waits_for_one_that_failed(ranks):
    first, second = ({name: str(rank[name]) for name in ("argument", "midway", "seed", "prior")} for rank in ranks)
    assert second["argument"].startswith("ValueError: y: has NaN")
    assert second["midway"] == "MemoryError: no memory for the network"
    for name in ("argument", "midway"):
        assert first[name] == "ProcessError: comm: process 1 failed; its own message says why"
    for name in ("seed", "prior"):
        assert first[name] == second[name] == f"ValueError: comm: {name} of process 1 is not that of process 0"


def test_processes_go_on_after_a_failure(ranks):
    for rank in ranks:
        np.testing.assert_array_equal(rank["after"], rank["cartesian"])
