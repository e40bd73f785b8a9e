"""The figures that benchmarks keep in a file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def common() -> Iterator[ModuleType]:
    """Benchmarks import each other by name, as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield pytest.importorskip("common")
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("description", [{}, {"about": "a test", "machine": {"cores": 2}}])
@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_a_run_is_continued(common: ModuleType, tmp_path: Path, description: dict[str, object], n_rows: int) -> None:
    path = tmp_path / "figures.json"
    rows = common.Rows(path, description)
    rows.write()
    for number in range(n_rows):
        rows.add(f"problem {number}", "method", [number, 0.5])
    again = common.Rows(path, {})
    assert again.description == description
    assert again.rows == {f"problem {number}": {"method": [number, 0.5]} for number in range(n_rows)}
    assert json.loads(path.read_text()) == {**description, "rows": again.rows}
