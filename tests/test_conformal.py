"""Conformal factors: what is learned, stored and found again."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from hggdp_plugin.conformal import (
    Calibration,
    calibration_path,
    conformal_factor,
    describe_method,
    fingerprint,
    read_calibration,
    sampling_family,
    weighted_quantile,
    write_calibration,
)
from hggdp_plugin.schedule import NoiseSchedule

METHOD = describe_method(NoiseSchedule.fast(), NoiseSchedule.fast(10))


def slices(factors, n=4000):
    """Errors over the map, complex normal with these factors."""
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((len(factors), 2, n)) / 2**0.5
    return [f * abs(one[0] + 1j * one[1]) for f, one in zip(factors, pairs, strict=True)]


def test_the_factor_and_the_quantiles_of_normal_errors() -> None:
    found = conformal_factor(slices([1.5] * 10), [1.5] * 10, ["a"] * 10)
    assert found.factor == pytest.approx(1.5)
    for name, expected in {"50": 0.833, "80": 1.269, "95": 1.731}.items():  # sqrt(-log(1 - p))
        assert found.quantiles[name] == pytest.approx(expected, rel=0.02)
    assert found.slice_factor == pytest.approx(1)


def test_domains_count_alike_whatever_their_slices() -> None:
    factors = [1.0] * 8 + [2.0]
    found = conformal_factor(slices(factors), factors, ["a"] * 8 + ["b"])
    assert found.factor == pytest.approx(2**0.5)
    assert found.slice_factor == pytest.approx(2**0.5)
    assert found.domains == ("a", "b")
    assert found.n_slices == 9


def test_coverage_of_new_slices() -> None:
    """Split-conformal: the stored quantile covers its share of slices from the same distribution."""
    ratios = np.exp(np.random.default_rng(1).normal(0.3, 0.2, 60))
    errors = slices(ratios)
    found = conformal_factor(errors[:30], ratios[:30], [str(i) for i in range(30)])
    covered = np.mean([np.mean(e < found.factor * found.quantiles["95"]) for e in errors[30:]])
    assert 0.93 < covered < 0.97
    assert np.mean(ratios[30:] < found.factor * found.slice_factor) > 0.8


def test_weighted_quantile() -> None:
    assert weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.5) == 2
    assert weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.9) == 3


def test_kinds_of_sampling() -> None:
    lines = np.zeros((3, 16, 16), bool)
    lines[:, ::3] = True
    assert sampling_family(lines, 8) == "lines, coils"
    assert sampling_family(lines.swapaxes(-2, -1), 1) == "lines, one coil"
    partial = lines & (np.arange(16) > 4)
    assert sampling_family(partial, 8) == "lines, coils"
    points = np.random.default_rng(0).random((50, 16, 16)) < 0.3  # together everything
    assert sampling_family(points, 8) == "points, coils"
    assert sampling_family(None, 8) == "non-Cartesian, coils"
    assert sampling_family(np.ones((16, 16)), 8) == "lines, coils"


@pytest.fixture
def prior(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes((6).to_bytes(8, "little") + b"headerweights")
    factor = conformal_factor(slices([1.5, 1.6]), [1.5, 1.6], ["a", "b"])
    write_calibration(path, Calibration(fingerprint(path), METHOD, {"lines, coils": factor}))
    return path


def test_what_is_written_is_read(prior) -> None:
    stored = read_calibration(prior)
    assert stored is not None
    assert stored.factor("lines, coils", METHOD) == stored.families["lines, coils"]
    assert stored.families["lines, coils"].domains == ("a", "b")
    assert stored.factor("points, coils", METHOD) is None
    assert stored.factor("lines, coils", METHOD.replace("10 steps", "5 steps")) is None
    write_calibration(prior, replace(stored, method="other"))
    assert read_calibration(prior).factor("lines, coils", METHOD) is None


def test_more_levels_are_the_same_method_and_fewer_are_not() -> None:
    quick = NoiseSchedule.fast(10)
    assert describe_method(NoiseSchedule.fast(50), quick) == METHOD
    for other in (NoiseSchedule.fast(5), NoiseSchedule.hggdp(), NoiseSchedule.posterior()):
        assert describe_method(other, quick) != METHOD
    assert describe_method(NoiseSchedule.fast(), NoiseSchedule.fast(8)) != METHOD


def test_other_weights_and_other_files_are_not_calibrations(prior, caplog) -> None:
    prior.write_bytes((5).to_bytes(8, "little") + b"otherweights")  # another description
    assert read_calibration(prior) is not None
    prior.write_bytes((6).to_bytes(8, "little") + b"headerothers")
    with caplog.at_level(logging.WARNING):
        assert read_calibration(prior) is None
    assert "made for other weights" in caplog.text
    calibration_path(prior).write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert read_calibration(prior) is None
    assert "not a calibration" in caplog.text
    calibration_path(prior).unlink()
    assert read_calibration(prior) is None
