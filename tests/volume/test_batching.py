import math

import pytest
import sigpy as sp

from hggdp_plugin import memory
from hggdp_plugin.volume import batching
from hggdp_plugin.volume.batching import BatchSize, batches_at_a_time, choose_batch_size, slices_that_fit


@pytest.fixture
def free(monkeypatch):
    """Sets the free memory."""

    def set_free(free):
        for module in (batching, memory):
            monkeypatch.setattr(module, "free_memory", lambda device: free)

    return set_free


@pytest.mark.parametrize(("memory", "slices"), [(2**34, 51), (2**30, 3), (2**26, 0), (0, 0)])
def test_slices_that_fit(free, memory, slices):
    free(memory)
    assert slices_that_fit((256, 256), 16, True, sp.cpu_device) == slices
    assert slices_that_fit((256, 256), 16, False, sp.cpu_device) <= slices


def test_the_batch_is_no_larger_than_the_measurement_and_the_caller_decides(free):
    free(math.inf)
    assert choose_batch_size((64, 64), 3, 5, cartesian=True) == BatchSize(slices=3, coils=5)
    assert choose_batch_size((64, 64), 30, 5, cartesian=True) == BatchSize(slices=batching.MAX_SLICES, coils=5)
    assert choose_batch_size((64, 64), 30, 5, cartesian=False, slices=12, coils=2) == BatchSize(slices=12, coils=2)
    free(0)
    assert choose_batch_size((64, 64), 30, 5, cartesian=True) == BatchSize(slices=1, coils=1)


def test_batches_leave_work_and_memory_for_all_threads(free):
    def batches(size, n_batches, threads=4):
        return batches_at_a_time((256, 256), BatchSize(size, 1), n_batches, 16, cartesian=True, threads=threads)

    free(math.inf)
    assert choose_batch_size((64, 64), 6, 5, cartesian=True, threads=4).slices == 2
    assert [batches(2, n) for n in (0, 1, 3, 9)] == [1, 1, 3, 4]
    free(2**30)  # for three slices
    assert choose_batch_size((256, 256), 6, 16, cartesian=True, threads=2).slices == 1
    assert [batches(size, 9) for size in (1, 2, 4)] == [3, 1, 1]
