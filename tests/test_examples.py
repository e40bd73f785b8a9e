"""The examples of the gallery run, and in each of their comparisons the last image is the best."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hggdp_plugin import figures
from hggdp_plugin.metrics import score

EXAMPLES = [
    path for path in sorted((Path(__file__).parents[1] / "examples").glob("*.py")) if path.stem != "make_phantom"
]
#: Smaller scans than those that are shown take a quarter of the time.
SMALLER = {"(256, 256)": "(128, 128)", "(192, 192)": "(128, 128)", "256 *": "128 *", "(256,": "(128,"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared = []

    def comparison(images: Mapping[str, np.ndarray], reference: np.ndarray, **options: Any) -> None:
        compared.append([score(image, reference).psnr for image in images.values()])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "comparison", comparison)
    plt.switch_backend("agg")
    source = path.read_text()
    for large, small in SMALLER.items():
        source = source.replace(large, small)
    exec(compile(source, path.name, "exec"), {"__name__": "__main__"})
    plt.close("all")
    assert compared
    for *others, best in compared:
        assert best > max(others) + 1
