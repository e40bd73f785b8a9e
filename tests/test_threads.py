import math
import os
import subprocess
import sys

import pytest

from hggdp_plugin import threads

CODE = """
import os
from hggdp_plugin.threads import configure_threads
configure_threads()
print(*(os.environ.get(name) for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS")))
import torch
print(torch.get_num_threads())
"""


def configured(**environment):
    """The variables and PyTorch's number of threads in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "MKL", "OPENBLAS"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_threads_are_those_allowed_and_spin_for_a_bounded_time():
    cores = str(threads.allowed_cores())
    assert configured() == [cores, str(threads.SPIN_COUNT), "1", cores]


def test_what_the_user_has_set_stays():
    assert configured(OMP_NUM_THREADS="1", GOMP_SPINCOUNT="7") == ["1", "7", "None", "1"]
    given = {"MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "2"}
    assert configured(**given)[:3] == ["None", "None", "2"]


def test_nothing_is_set_once_pytorch_is_loaded(monkeypatch):
    import torch

    assert torch.get_num_threads() > 0
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads.configure_threads()
    assert "GOMP_SPINCOUNT" not in os.environ
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("affinity", "siblings", "quota", "cores"),
    [
        ({0, 1, 2, 3}, {}, math.inf, 4),
        ({0, 1, 2, 3}, {0: "0,2", 2: "0,2", 1: "1,3", 3: "1,3"}, math.inf, 2),
        ({0, 1, 2, 3}, {}, 2.5, 3),
        ({0, 1, 2, 3}, {}, 0.1, 1),
        ({5}, {}, math.inf, 1),
    ],
)
def test_cores_follow_affinity_hardware_threads_and_quota(affinity, siblings, quota, cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: affinity, raising=False)
    monkeypatch.setattr(threads, "_siblings", lambda cpu: siblings.get(cpu, str(cpu)))
    monkeypatch.setattr(threads, "_cpu_quota", lambda: quota)
    assert threads.allowed_cores() == cores


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_quota_of_either_version_of_control_groups(files, quota, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert threads._cpu_quota(tmp_path) == quota
