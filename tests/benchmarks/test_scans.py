"""The benchmarks' simulated scans and their figures: what can be checked without measured data."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Benchmarks import each other by name, as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def scans() -> ModuleType:
    return pytest.importorskip("scans")


@pytest.fixture
def scan(scans: ModuleType) -> object:
    y, x = np.indices((128, 96))
    image = (np.hypot(y - 64, x - 48) < 40) * (1 + 0.3 * np.sin(x / 3)) * scans.smooth_phase((128, 96), "disc")
    return scans.simulated("disc", "disc", image.astype(np.complex64), "")


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("sampling", ["random lines R=4", "Poisson R=6", "radial, 40 spokes"])
def test_a_measurement_agrees_with_its_reference_to_the_noise(
    scans: ModuleType, scan: object, sampling: str, several: bool
) -> None:
    from hggdp_plugin.linops import Sense

    problem = scans.simulate(scans.Case(scan, several, sampling, 0.01))
    again = scans.simulate(scans.Case(scan, several, sampling, 0.01))
    assert np.array_equal(problem.y, again.y)
    k = Sense(problem.mps, coord=problem.coord)(problem.reference)
    residual = (problem.y - k)[problem.y != 0]
    assert np.mean(abs(residual) ** 2) ** 0.5 == pytest.approx(0.01, rel=0.1)


def test_wrong_maps_are_as_wrong_as_they_are_said_to_be(scans: ModuleType, scan: object) -> None:
    robustness = pytest.importorskip("robustness")
    problem = scans.simulate(scans.Case(scan, True, "Poisson R=6", 0.01))
    wrong = robustness.wrong_maps(problem, np.random.default_rng(0))
    error = np.linalg.norm(wrong.mps - problem.mps) / np.linalg.norm(problem.mps)
    assert error == pytest.approx(0.1, rel=1e-3)


def test_motion_keeps_the_magnitude_of_every_sample_and_moves_some(scans: ModuleType, scan: object) -> None:
    robustness = pytest.importorskip("robustness")
    problem = scans.simulate(scans.Case(scan, True, "random lines R=4", 0.01))
    moved = robustness.motion(problem, np.random.default_rng(0))
    np.testing.assert_allclose(abs(moved.y), abs(problem.y), rtol=1e-5)
    changed = (abs(moved.y - problem.y) > 1e-6).any(axis=(0, 2))
    lines = (problem.y != 0).any(axis=(0, 2))
    assert 0 < changed.sum() < lines.sum()


def test_a_method_that_keeps_lesions_has_slope_one(scans: ModuleType, scan: object) -> None:
    robustness = pytest.importorskip("robustness")
    found = robustness.lesions(np.kron(scan.image, np.ones((2, 2))), np.random.default_rng(0))
    assert len(found) == robustness.LESIONS
    assert all(shape.min() >= 0 and shape.max() == 1 for _, _, shape in found)
    overlap = sum(shape > 0 for _, _, shape in found)
    assert overlap.max() == 1
    assert robustness.regression([[kind, c, c] for kind, c, _ in found]) == ["1.00", "0.0"]
    assert robustness.regression([[kind, c, c / 2] for kind, c, _ in found]) == ["0.50", "0.0"]


def test_figures_are_kept_and_those_of_a_changed_prior_dropped(tmp_path: Path) -> None:
    common = pytest.importorskip("common")
    prior, path = tmp_path / "mine.safetensors", tmp_path / "figures.json"
    prior.write_bytes(b"first")
    rows = common.Rows(path, {"columns": ["PSNR (dB)"]})
    assert rows.priors([str(prior)]) == {"mine": str(prior)}
    rows.add("problem", "mine", [30.0])
    rows.add("problem", "other", [20.0])
    same = common.Rows(path, {"columns": ["PSNR (dB)"]})
    same.priors([str(prior)])
    assert same.rows == {"problem": {"mine": [30.0], "other": [20.0]}}
    prior.write_bytes(b"second")
    same.priors([str(prior)])
    assert same.rows == {"problem": {"other": [20.0]}}
    assert not same.has("problem", "mine")


def test_tasks_run_in_other_processes_until_the_time_is_over() -> None:
    common = pytest.importorskip("common")
    done = sorted(common.in_parallel(divmod, [(7, 2), (9, 4)], workers=2))
    assert done == [((7, 2), (3, 1)), ((9, 4), (2, 1))]
    assert not list(common.in_parallel(divmod, [(7, 2)], minutes=0))


def test_tables_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = pytest.importorskip("common")
    rows = common.Rows(tmp_path / "figures.json", {"machine": "this one"})
    rows.table("gain (dB)", ["lines", "points"], {"knee": [1.234, "-"]})
    assert "| gain (dB) | lines | points |" in capsys.readouterr().out
    stored = common.Rows(tmp_path / "figures.json", {})
    assert stored.description["tables"] == {"gain (dB)": {"knee": {"lines": "1.23", "points": "-"}}}


def test_a_few_scans_of_each_domain_are_taken(scans: ModuleType, scan: object) -> None:
    found = [replace(scan, domain=domain, name=str(i)) for i, domain in enumerate("aabab")]
    assert [one.name for one in scans.first_of_each(found, 2)] == ["0", "1", "2", "4"]
    assert len(scans.first_of_each(found, None)) == 5
