"""Batches side by side: the same image, and an end as soon as one fails."""

import threading
import time

import numpy as np
import pytest
import torch

from hggdp_plugin.io.kspace import read_kspace
from hggdp_plugin.log import collected_log
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.volume import batch, batching, progress, reconstruct
from hggdp_plugin.volume.workers import side_by_side

SLICES = 6


@pytest.fixture
def raw(tmp_path):
    rng = np.random.default_rng(0)
    ksp = rng.standard_normal((SLICES, 3, 40, 36)) + 1j * rng.standard_normal((SLICES, 3, 40, 36))
    ksp[..., 17:23, 15:21] *= 30
    np.save(tmp_path / "ksp.npy", ksp * (rng.random((40, 36)) < 0.5))
    return read_kspace(tmp_path / "ksp.npy")


@pytest.fixture
def threads(monkeypatch):
    """Sets the threads of PyTorch, and counts the batches that are reconstructed at the same time."""
    found = {"at once": 0, "now": 0}
    batch = reconstruct.reconstruct_batch

    def counted(*args):
        found["now"] += 1
        found["at once"] = max(found["at once"], found["now"])
        time.sleep(0.05)
        try:
            return batch(*args)
        finally:
            found["now"] -= 1

    before = torch.get_num_threads()
    monkeypatch.setattr(reconstruct, "reconstruct_batch", counted)
    torch.set_num_threads(3)
    yield found
    torch.set_num_threads(before)


def test_the_image_is_that_of_one_batch_after_the_other(raw, prior, threads, monkeypatch):
    def run():
        seen = []
        volume = reconstruct.VolumeRecon(raw, prior=prior, schedule=NoiseSchedule.fast(3), batch_size=1)
        image = volume.run(show_pbar=False, on_batch=seen.extend)
        assert [entry["frame"][4] for entry in seen] == list(range(SLICES))
        return image

    together, n_together = run(), threads["at once"]
    assert torch.get_num_threads() == 3
    threads["at once"] = 0
    monkeypatch.setattr(batching, "slices_that_fit", lambda *args: 1)
    np.testing.assert_allclose(run(), together, atol=1e-5 * abs(together).max())
    assert (n_together, threads["at once"]) == (3, 1)


def test_an_interrupt_stops_the_others(raw, prior, threads, monkeypatch):
    class Interrupted(batch.BatchRecon):
        made, updates = 0, 0

        def __init__(self, *args, **options):
            Interrupted.made += 1
            if Interrupted.made == 3:
                raise KeyboardInterrupt
            super().__init__(*args, **options)

        def _post_update(self):
            Interrupted.updates += 1
            super()._post_update()

    monkeypatch.setattr(batch, "BatchRecon", Interrupted)
    volume = reconstruct.VolumeRecon(raw, prior=prior, schedule=NoiseSchedule.fast(5000), batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        volume.run(show_pbar=False)
    assert Interrupted.made == 3
    assert Interrupted.updates < 5000
    assert threads["now"] == 0


def test_an_error_ends_the_work_and_results_keep_their_order():
    stopped = threading.Event()
    assert list(side_by_side(lambda x: 2 * x, range(9), 4, stopped.set)) == list(range(0, 18, 2))
    assert stopped.is_set()

    def fail(x):
        if x == 1:
            raise ValueError("one")
        return x

    results = side_by_side(fail, range(9), 2, stopped.set)
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)


def test_the_log_of_a_thread_leaves_out_others():
    logger = progress.logging.getLogger("hggdp_plugin.test")
    with collected_log() as everything, collected_log(of_this_thread=True) as own:
        other = threading.Thread(target=logger.warning, args=("theirs",))
        other.start()
        other.join()
        logger.warning("ours")
    assert own == [("WARNING", "ours")]
    assert everything == [("WARNING", "theirs"), ("WARNING", "ours")]
