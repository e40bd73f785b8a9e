"""Figures in README and docs are those that the benchmarks wrote."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hggdp_plugin.checkpoint import prior_file
from hggdp_plugin.conformal import read_calibration

ROOT = Path(__file__).parents[1]
#: Columns and rows of the paper's Table I as benchmarks/table1.py names them.
COLUMNS = {f"radial {percent} %": f"radial_{percent:03d}" for percent in (30, 25, 20, 10, 15)}
COLUMNS |= {"random 15 %": "random_015", "lines 15 %": "cart_015"}
ROWS = {
    "HGGDPRecon, fast, 25 evaluations": "ours, fast",
    "HGGDPRecon, fast, 50 levels": "ours, fast, 50 levels",
    "HGGDPRecon, fast, mean of 2 samples": "ours, fast, mean of 2",
    "HGGDPRecon, hggdp, 800 evaluations, first slice only": "ours, hggdp",
}


def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())


def table(page: str, corner: str, column: str) -> dict[str, dict[str, str]]:
    """The rows of the table that has a corner and a column, by their first cells."""
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    for text in tables:
        header, _, *rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines()]
        if header[0] == corner and column in header:
            return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in rows}
    raise AssertionError(f"{page} has no such table")


def test_the_priors_card_shows_what_was_measured():
    measured = results("priors")["tables"]["domain"]
    assert table("hggdp_plugin/priors/mri-any.md", "domain", "mri-any") == measured


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "hggdp_plugin/priors/brain-t2.md"])
def test_multicoil(page):
    measured = results("multicoil")["samplings"]
    for method, cells in table(page, "PSNR (dB)", "radial, 40 spokes").items():
        assert cells == {sampling: f"{measured[sampling][method][0]:.2f}" for sampling in cells}


def test_small_fields_of_view():
    measured = results("small_fov")["psnr"]
    shown = table("docs/results.md", "PSNR (dB)", "BART, two sets")
    assert shown == {row: {name: f"{psnr:.2f}" for name, psnr in cells.items()} for row, cells in measured.items()}


@pytest.mark.parametrize(("measure", "corner", "form"), [("psnr", "PSNR (dB)", "{:.2f}"), ("ssim", "SSIM", "{:.3f}")])
def test_table_1(measure, corner, form):
    rows = table("docs/results.md", corner, "lines 15 %")
    measured = results("table1")["rows"]
    rows = {ROWS.get(name, name): cells for name, cells in rows.items()}
    assert rows.keys() >= measured["radial_030"].keys()
    for method in measured["radial_030"]:
        assert rows[method] == {name: form.format(measured[COLUMNS[name]][method][measure]) for name in COLUMNS}


def test_example():
    caption = " ".join((ROOT / "README.md").read_text().split())
    measured = results("example")
    names = {"zero-filled": "Zero-filled", "SENSE (SigPy)": "SENSE", "HGGDPRecon": "HGGDPRecon"}
    for method, name in names.items():
        assert f"{name} {measured['methods'][method]['psnr']:.1f} dB" in caption
    assert f"takes {measured['seconds']:.0f} s" in caption


def test_coil_maps():
    measured = results("maps")
    for name, cells in table("docs/performance.md", "CPU seconds", "to SigPy's maps").items():
        case = measured["maps"][name]
        seconds = [f"{case['cpu_seconds'][method]:.2f}" for method in ("ours", "SigPy", "BART")]
        pairs = ("ours, SigPy", "ours, BART", "SigPy, BART")
        assert list(cells.values()) == [*seconds, *(f"{100 * case['distance'][pair]['rms']:.2f} %" for pair in pairs)]
    for name, cells in table("docs/performance.md", "PSNR (dB)", "SigPy's maps").items():
        scan, sampling = name.rsplit(", ", 1)
        case = measured["reconstructions"][scan][sampling]
        assert list(cells.values()) == [f"{case[method]:.2f}" for method in ("ours", "SigPy", "BART")]


def test_volume():
    measured = results("volume")
    for part, cells in table("docs/performance.md", "seconds a slice", "BART").items():
        for column, method in {"HGGDPRecon": "ours", "BART": "bart", "SigPy": "sigpy"}.items():
            seconds = {part: value / measured["slices"] for part, value in measured[method]["seconds"].items()}
            value = measured[method].get(part, seconds.get(part))
            assert cells[column] == ("-" if value is None else f"{value:.2f}" if "GiB" in part else f"{value:.3f}")


def test_volume_in_the_readme():
    measured, text = results("volume"), " ".join((ROOT / "README.md").read_text().split())
    ours, bart = (measured[method]["seconds"]["total"] / measured["slices"] for method in ("ours", "bart"))
    assert f"takes {ours:.2f} s a slice" in text
    assert f"take {bart:.1f} s" in text


def test_precision():
    measured = results("precision")["seconds"]
    kinds = {"AVX2": "AVX2", "AVX-512": "AVX-512, no bfloat16", "AVX-512 with AMX": "this processor"}
    for name, cells in table("docs/performance.md", "one evaluation (s)", "AVX-512 with AMX").items():
        assert cells == {column: f"{measured[kinds[column]][name][0]:.3f}" for column in cells}


def test_growth():
    measured = results("scaling")
    for name, cells in table("docs/performance.md", "changed", "CPU seconds").items():
        row = measured[name.split(" ")[0]][name.split(" ", 1)[1]]
        assert cells == {column: f"{row[column]:.2f}" for column in cells}


@pytest.mark.parametrize(
    ("page", "name", "key", "column"),
    [
        ("docs/guides/cluster.md", "cohort", "runs", "efficiency"),
        ("docs/guides/inline.md", "inline", "rows", "first answer (s)"),
    ],
)
def test_processes(page, name, key, column):
    measured = results(name)[key]
    for row, cells in table(page, "cohort" if name == "cohort" else "load", column).items():
        assert all(abs(float(cell) - measured[row][column]) <= 0.051 for column, cell in cells.items())


def test_few_steps():
    text, seconds = " ".join((ROOT / "docs/performance.md").read_text().split()), results("quick")["seconds"]
    quick, fast = (seconds[f"brain-t2: {name} levels"] for name in ("quick, 10", "fast, 25"))
    bart, sigpy = ([seconds[f"{name} L1-wavelet, {n}"] for n in (50, 100)] for name in ("BART", "SigPy"))
    assert f"takes {quick:.2f} s instead of {fast:.2f} s" in text
    assert f"takes {bart[0]:.2f} s for 50 iterations and {bart[1]:.2f} s for 100, SigPy's {sigpy[0]:.2f} and" in text
    assert f"and {sigpy[1]:.2f} s" in text
    rows = results("quick")["rows"]
    for label, cells in table("docs/performance.md", "PSNR (dB)", "8 coils, Poisson R=6").items():
        for column, psnr in cells.items():
            coils, sampling = column.replace("8 coils", "coils").split(", ")
            mine = [row for key, row in rows.items() if f", {coils}, " in key and sampling in key]
            values = [row[label] for row in mine if label in row]
            assert psnr == (f"{sum(values) / len(values):.2f}" if len(values) == len(mine) else "-")


def test_the_cost_of_error_maps():
    text, seconds = " ".join((ROOT / "docs/uncertainty.md").read_text().split()), results("calibration")["seconds"]
    one, four, eight = (seconds[key] for key in ("reconstruction", "map, 4 copies", "map, 8 copies"))
    assert f"{one:.2f} s for the reconstruction, {four:.2f} s for a map of four copies, {eight:.2f} s for one" in text


def test_error_maps():
    rows = results("calibration")["rows"]
    factors = read_calibration(prior_file("brain-t2")).families
    shown = table("docs/uncertainty.md", "brain-t2: scan, sampling", "sparsification")
    assert shown.pop("mean")
    for name, cells in shown.items():
        scan, sampling = name.split(", ", 1)
        (row,) = (row for key, row in rows.items() if key.startswith(f"{scan}, coils, {sampling}, "))
        measured = row["brain-t2, bootstrap"]
        predicted, true = measured["rms"]
        assert cells["ratio, raw"] == f"{predicted / true:.2f}"
        assert cells["ratio"] == f"{factors[measured['family']].factor * predicted / true:.2f}"
        assert cells["correlation"] == f"{measured['correlation']:.2f}"


TABLE1, MRI_ANY = ("table1", "table1_mri-any"), "hggdp_plugin/priors/mri-any.md"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/reach.md", ("reach", "ablation", "selfcheck", "robustness", "adaptation")),
        ("docs/uncertainty.md", ("calibration",)),
    ],
)
def test_pasted_tables(page, names):
    """Every table of figures is one that a benchmark wrote; its name is in the upper left corner."""
    measured: dict[str, Any] = {}
    for name in names:
        measured |= results(name)["tables"]
    corners = [line.split("|")[1].strip() for line in re.findall(r"(\|.*)\n\|---\|---:", (ROOT / page).read_text())]
    assert corners
    for corner in corners:
        column = next(iter(next(iter(measured[corner].values()))))
        assert table(page, corner, column) == measured[corner]


def test_reach_in_the_readme():
    measured = results("reach")["tables"]
    corner = "brain-t2: dB above BART, several coils"
    for row, cells in table("README.md", corner, "Poisson R=6").items():
        assert cells == {column: measured[corner][row][column] for column in cells}


def test_table1_of_the_other_prior():
    ours, other = ({k: v["ours, fast"]["psnr"] for k, v in results(name)["rows"].items()} for name in TABLE1)
    below = [ours[mask] - other[mask] for mask in ours]
    assert f"{min(below):.2f} to {max(below):.2f} dB below `brain-t2`" in (ROOT / MRI_ANY).read_text()


def test_threads():
    measured = results("threads")["seconds"]
    for name, cells in table("docs/performance.md", "spin", "bfloat16, idle").items():
        row = measured[{"default": "0", "bounded": "30000"}[name]]
        assert cells == {column: f"{row[column]:.2f}" for column in cells}
