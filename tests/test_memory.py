import math

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import HGGDPRecon, memory
from hggdp_plugin.schedule import NoiseSchedule


def test_free_memory_is_that_of_the_machine():
    assert 2**20 < memory.free_memory(sp.cpu_device) < 2**50


@pytest.mark.cuda
def test_free_memory_of_a_gpu():
    assert 2**20 < memory.free_memory(sp.Device(0)) < 2**50


@pytest.mark.parametrize(
    ("free", "coils"),
    [(math.inf, 16), (2**34, 16), (2**30, 16), (2**26, 1), (0, 1)],
)
def test_coils_that_fit(free, coils, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert memory.coils_at_a_time((256, 256), 16, True, sp.cpu_device) == coils


def test_little_memory_gives_the_same_image(prior, measurement, monkeypatch):
    def image(free):
        monkeypatch.setattr(memory, "free_memory", lambda device: free)
        options = {"schedule": NoiseSchedule.fast(levels=3), "show_pbar": False}
        app = HGGDPRecon(measurement.y, measurement.mps, prior=prior, **options)
        assert app.problem.A.coil_batch_size == (1 if free == 0 else len(measurement.mps))
        return app.run()

    expected = image(math.inf)
    np.testing.assert_allclose(image(0), expected, atol=1e-5 * abs(expected).max())
