"""Tables of benchmarks/calibration.py: how error maps compare with the true errors."""

from typing import Any

import numpy as np
from common import Rows, print_table
from scans import Case

from hggdp_plugin.conformal import COVERAGES, Calibration, ConformalFactor

SAMPLINGS = ("random lines R=4", "Poisson R=6", "radial, 40 spokes")
#: Where the distribution of errors is stored.
PROBABILITIES = (*(float(p) for p in np.round(np.arange(0.05, 1, 0.05), 2)), 0.975, 0.99)
BOOTSTRAP, LESIONS = "bootstrap", "bootstrap, lesions"
CONFORMAL = "conformal"
FIGURES = ("correlation", "sparsification")
SHARES = tuple(f"{100 * p:g} %" for p in COVERAGES)


def coverage(quantiles: Any, bound: float) -> float:
    """Part of the errors below a multiple of the map."""
    points = np.concatenate([[0], quantiles, [2 * quantiles[-1]]])
    return float(np.interp(bound, points, [0, *PROBABILITIES, 1]))


def print_tables(rows: Rows, found: list[Case], prior: str, methods: list[str], calibration: Calibration) -> None:
    """Figures by domain, then by decile, then lesions."""
    for method in [BOOTSTRAP, CONFORMAL, *methods]:
        label = f"{prior}, {BOOTSTRAP if method == 'conformal' else method}"
        for sampling in SAMPLINGS:
            table: dict[str, list[Any]] = {}
            for domain in dict.fromkeys(case.scan.domain for case in found):
                mine = [
                    c for c in found if (c.scan.domain, c.sampling) == (domain, sampling) and rows.has(c.key, label)
                ]
                if mine:
                    numbers = [domain_figures(rows.rows[c.key], label, method == CONFORMAL, calibration) for c in mine]
                    table[domain] = np.mean(numbers, axis=0).tolist()
            if table:
                values = np.array(list(table.values()))
                table["mean"] = values.mean(axis=0).tolist()
                print(f"\n{prior}, {method}, {sampling}\n")
                columns = ["ratio", *[f"{100 * p:g} % covers" for p in COVERAGES], "correlation", "sparsification"]
                print_table(
                    columns, {d: [*v[:1], *[f"{100 * c:.0f} %" for c in v[1:4]], *v[4:6]] for d, v in table.items()}
                )
    print_deciles(rows, found, f"{prior}, {BOOTSTRAP}", calibration)
    print_bounds(rows, found, f"{prior}, {BOOTSTRAP}", calibration)
    print_lesions(rows, found, f"{prior}, {LESIONS}", f"{prior}, {BOOTSTRAP}", calibration)


def domain_figures(row: dict[str, Any], label: str, conformal: bool, calibration: Calibration) -> list[float]:
    """Ratio, coverages, correlation and sparsification of one problem."""
    one = row[label]
    factor = calibration.families[one["family"]] if conformal else None
    scale = 1.0 if factor is None else factor.factor
    covered = [coverage(one["quantiles"], scale * bound(factor, p)) for p in COVERAGES]
    return [scale * one["rms"][0] / one["rms"][1], *covered, one["correlation"], one["sparsification"]]


def bound(factor: ConformalFactor | None, probability: float) -> float:
    """Multiple of the standard error that nominally covers a part of the errors; complex normal ones without factor."""
    return float(np.sqrt(-np.log(1 - probability))) if factor is None else factor.quantiles[f"{100 * probability:g}"]


def print_deciles(rows: Rows, found: list[Case], label: str, calibration: Calibration) -> None:
    """Ratio and coverage of the calibrated map by deciles of the prediction."""
    mine = [rows.rows[case.key][label] for case in found if rows.has(case.key, label)]
    if not mine:
        return
    table: dict[str, list[Any]] = {}
    for number in range(10):
        ratios, covered = [], []
        for row in mine:
            factor = calibration.families[row["family"]]
            predicted, true, *quantiles = row["deciles"][number]
            ratios.append(factor.factor * predicted / true)
            covered.append([coverage(quantiles, factor.factor * bound(factor, p)) for p in COVERAGES])
        table[str(number + 1)] = [float(np.mean(ratios)), *[f"{100 * c:.0f} %" for c in np.mean(covered, axis=0)]]
    print(f"\n{label}, conformal, by deciles of the map, {len(mine)} problems\n")
    print_table(["ratio", *[f"{100 * p:g} % covers" for p in COVERAGES]], table)


def print_bounds(rows: Rows, found: list[Case], label: str, calibration: Calibration) -> None:
    """How often the PSNR is above its lower bound, and how far from what is expected."""
    gains, above = [], []
    for case in found:
        if rows.has(case.key, label):
            row = rows.rows[case.key][label]
            factor = calibration.families[row["family"]]
            gains.append(10 * np.log10(factor.factor**2 * row["mse"][0] / row["mse"][1]))
            above.append(gains[-1] > -20 * np.log10(factor.slice_factor))
    if gains:
        print(
            f"\nPSNR minus expected PSNR: {np.mean(gains):+.2f} dB on the mean, standard deviation {np.std(gains):.2f}"
            f" dB; above the lower bound in {100 * np.mean(above):.0f} % of {len(gains)} problems"
        )


def print_lesions(rows: Rows, found: list[Case], label: str, other: str, calibration: Calibration) -> None:
    """Whether lesions are within the interval, those that were suppressed and the others."""
    points = []
    for case in found:
        if rows.has(case.key, label) and rows.has(case.key, other):
            factor = calibration.families[rows.rows[case.key][other]["family"]]
            limit = factor.factor * factor.quantiles["95"]
            points += [(r / c < 0.5, abs(c), e <= limit * s) for _, c, r, s, e in rows.rows[case.key][label]]
    if not points:
        return
    suppressed, contrast, inside = (np.array(column) for column in zip(*points, strict=True))
    table: dict[str, list[Any]] = {}
    for name, chosen in {
        "all": contrast > 0,
        "suppressed (less than half of the contrast is left)": suppressed,
        "contrast 20 % and 50 %": contrast > 0.15,
        "contrast 20 % and 50 %, suppressed": suppressed & (contrast > 0.15),
    }.items():
        share = f"{100 * inside[chosen].mean():.0f} %" if chosen.any() else "-"
        table[name] = [int(chosen.sum()), share]
    print("\nlesions: is their error within the 95 % interval?\n")
    print_table(["lesions", "within"], table)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def keep_tables(rows: Rows, found: list[Case], prior: str, methods: list[str], calibration: Calibration) -> None:
    """The tables of docs/uncertainty.md: by sampling, of both priors; by scan; and by measure."""
    label = f"{prior}, {BOOTSTRAP}"
    measured = [case for case in found if rows.has(case.key, label)]
    measured.sort(key=lambda case: SAMPLINGS.index(case.sampling))
    if not measured:
        return
    raw, fitted = (
        {case.key: domain_figures(rows.rows[case.key], label, conformal, calibration) for case in measured}
        for conformal in (False, True)
    )

    def of_samplings(name: str, cases: list[Case]) -> list[Any]:
        values = np.array([fitted[case.key] for case in cases])
        ratio, covered = values[:, 0], values[:, 3]
        family = calibration.families[rows.rows[cases[0].key][label]["family"]]
        factor = [family.factor, family.n_slices] if name in SAMPLINGS else ["", ""]
        span = f"{ratio.min():.2f} to {ratio.max():.2f}"
        return [*factor, len(cases), float(ratio.mean()), span, percent(covered.mean()), percent(covered.min())]

    groups = {sampling: [case for case in measured if case.sampling == sampling] for sampling in SAMPLINGS}
    groups = {name: cases for name, cases in groups.items() if cases} | {"all": measured}
    ours = {f"{prior}, {name}": of_samplings(name, cases) for name, cases in groups.items()}
    before = rows.description.get("tables", {}).get("prior, sampling", {})
    kept = {name: list(cells.values()) for name, cells in before.items() if not name.startswith(f"{prior},")}
    columns = ["factor", "slices", "scans", "ratio", "its range", "95 % covers", "at least"]
    rows.table("prior, sampling", columns, dict(sorted({**kept, **ours}.items(), key=lambda row: row[0].split(",")[0])))

    def of_scan(first: float, values: Any) -> list[Any]:
        ratio, *covered = values[:4]
        return [first, float(ratio), *map(percent, covered), *map(float, values[4:6])]

    scans = {f"{case.scan.name}, {case.sampling}": of_scan(raw[case.key][0], fitted[case.key]) for case in measured}
    mean = of_scan(float(np.mean([v[0] for v in raw.values()])), np.mean(list(fitted.values()), axis=0))
    rows.table(f"{prior}: scan, sampling", ["ratio, raw", "ratio", *SHARES, *FIGURES], {**scans, "mean": mean})

    def of_measure(values: list[list[float]]) -> list[Any]:
        ratio, *covered = np.mean(values, axis=0)[:4]
        ratios = [value[0] for value in values]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        return [len(values), float(ratio), span, *map(percent, covered), *map(float, np.mean(values, axis=0)[4:6])]

    measures = {}
    for method in methods:
        there = [case for case in measured if rows.has(case.key, f"{prior}, {method}")]
        if there:
            name = f"{prior}, {method}"
            measures[method] = of_measure([domain_figures(rows.rows[c.key], name, False, calibration) for c in there])
    measures["bootstrap without its factor"] = of_measure(list(raw.values()))
    measures["bootstrap with its factor"] = of_measure(list(fitted.values()))
    columns = ["problems", "mean ratio", "its range", *SHARES, *FIGURES]
    if methods:
        rows.table(f"{prior}: measure", columns, measures)
