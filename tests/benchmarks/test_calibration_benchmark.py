"""The figures of benchmarks/calibration.py, on errors whose distribution is known."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    """Benchmarks import each other by name, as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield pytest.importorskip("calibration")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def tables(module: ModuleType) -> ModuleType:
    """What the script's tables are computed with."""
    return sys.modules["calibration_tables"]


def problem(factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, an error map, and a reference from which the image differs by complex normal errors."""
    rng = np.random.default_rng(0)
    reference = np.ones((128, 128), complex)
    std = 0.01 * np.exp(np.linspace(-1, 1, 128))[:, None] * np.ones((1, 128))
    pairs = rng.standard_normal((2, 128, 128)) / 2**0.5
    return reference + factor * std * (pairs[0] + 1j * pairs[1]), std, reference


def test_a_map_that_is_right(module: ModuleType, tables: ModuleType) -> None:
    found = module.figures(*problem(1.0))
    assert found["rms"][0] / found["rms"][1] == pytest.approx(1, rel=0.02)
    for probability in (0.5, 0.8, 0.95):
        assert tables.coverage(found["quantiles"], np.sqrt(-np.log(1 - probability))) == pytest.approx(
            probability, abs=0.01
        )
    assert all(row[0] / row[1] == pytest.approx(1, rel=0.1) for row in found["deciles"])
    assert found["correlation"] > 0.9
    assert 0.5 < found["sparsification"] < 1


def test_a_map_that_is_too_small_and_one_with_noise_in_the_reference(module: ModuleType) -> None:
    image, std, reference = problem(1.0)
    small = module.figures(image, std / 2, reference)
    assert small["rms"][0] / small["rms"][1] == pytest.approx(0.5, rel=0.02)
    noisy = module.figures(image, std, reference, noise=0.5)
    assert noisy["rms"][0] == pytest.approx(np.hypot(0.5, module.rms(std)), rel=1e-3)


def test_quantiles_and_coverage_are_inverse(module: ModuleType, tables: ModuleType) -> None:
    errors = np.random.default_rng(0).exponential(size=100_000)
    quantiles = np.quantile(errors, module.PROBABILITIES)
    assert tables.coverage(quantiles, 1.0) == pytest.approx(1 - np.exp(-1), abs=0.005)
    assert np.mean(module.evenly(quantiles) < 1.0) == pytest.approx(1 - np.exp(-1), abs=0.01)


def test_sparsification_of_the_best_and_of_a_random_order(module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=20_000)
    assert module.sparsification(errors, errors) == pytest.approx(1)
    assert abs(module.sparsification(errors, rng.random(20_000))) < 0.05
