import numpy as np
import pytest

from hggdp_plugin.simulation import head_phantom


def test_phantom_is_a_normalized_complex_stack_and_follows_the_seed():
    head = head_phantom((48, 40), num_slices=3, seed=5)
    assert head.shape == (3, 48, 40)
    assert head.dtype == np.complex64
    assert np.abs(head).max() == pytest.approx(1)
    assert (head == head_phantom((48, 40), num_slices=3, seed=5)).all()
    assert np.abs(head - head_phantom((48, 40), num_slices=3, seed=6)).max() > 0.1


def test_the_same_head_at_every_matrix_size():
    coarse = head_phantom((64, 64), seed=2, phase=False).real[0]
    fine = head_phantom((128, 128), seed=2, phase=False).real[0]
    averaged = fine.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), averaged.ravel())[0, 1] > 0.98


def test_background_is_empty_and_neighboring_slices_are_alike():
    head = np.abs(head_phantom((64, 64), num_slices=2))
    for corner in (head[:, :8, :8], head[:, -8:, :8], head[:, :8, -8:], head[:, -8:, -8:]):
        assert corner.max() == 0
    assert 0.5 < np.corrcoef(head[0].ravel(), head[1].ravel())[0, 1] < 0.999


def test_phase_is_smooth_and_can_be_left_out():
    plain = head_phantom((64, 64), phase=False)
    head = head_phantom((64, 64))
    assert (plain.imag == 0).all()
    np.testing.assert_allclose(np.abs(head), np.abs(plain), atol=0.02)
    inside = (np.abs(head[0, :, 1:]) > 0.1) & (np.abs(head[0, :, :-1]) > 0.1)
    steps = np.angle(head[0, :, 1:] * head[0, :, :-1].conj())[inside]
    assert np.ptp(np.angle(head[np.abs(head) > 0.1])) > 0.5
    assert np.abs(steps).max() < 0.4


def test_impossible_sizes_are_refused():
    for shape, slices in (((0, 8), 1), ((8, 8), 0), ((8,), 1)):
        with pytest.raises(ValueError, match="head_phantom"):
            head_phantom(shape, slices)
