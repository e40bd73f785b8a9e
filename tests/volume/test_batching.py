import math

import pytest
import sigpy as sp

from hggdp_plugin import memory
from hggdp_plugin.volume import batching
from hggdp_plugin.volume.batching import BatchSize, choose_batch_size, slices_at_a_time


@pytest.fixture
def free(monkeypatch):
    """Sets the free memory."""

    def set_free(free):
        for module in (batching, memory):
            monkeypatch.setattr(module, "free_memory", lambda device: free)

    return set_free


@pytest.mark.parametrize(("memory", "slices"), [(math.inf, 8), (2**34, 8), (2**30, 3), (2**26, 1), (0, 1)])
def test_slices_that_fit(free, memory, slices):
    free(memory)
    assert slices_at_a_time((256, 256), 16, True, sp.cpu_device) == slices
    assert slices_at_a_time((256, 256), 16, False, sp.cpu_device) <= slices


def test_the_batch_is_no_larger_than_the_measurement_and_the_caller_decides(free):
    free(math.inf)
    assert choose_batch_size((64, 64), 3, 5, cartesian=True) == BatchSize(slices=3, coils=5)
    assert choose_batch_size((64, 64), 30, 5, cartesian=True) == BatchSize(slices=8, coils=5)
    assert choose_batch_size((64, 64), 30, 5, cartesian=False, slices=12, coils=2) == BatchSize(slices=12, coils=2)
    free(0)
    assert choose_batch_size((64, 64), 30, 5, cartesian=True) == BatchSize(slices=1, coils=1)
