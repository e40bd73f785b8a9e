"""Puts the tables of benchmarks/results into docs/reach.md and docs/uncertainty.md.

The name in the upper left corner says which table of which file it is. A line ``| NAME |`` alone gets its table.

    python benchmarks/paste.py
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("docs/reach.md", "docs/uncertainty.md")
RESULTS = ("reach", "ablation", "selfcheck", "robustness", "adaptation", "calibration")


def tables() -> dict[str, dict[str, dict[str, str]]]:
    """All tables by name: cells by row and column."""
    found = {}
    for name in RESULTS:
        path = ROOT / "benchmarks/results" / f"{name}.json"
        found.update(json.loads(path.read_text()).get("tables", {}) if path.exists() else {})
    return found


def markdown(name: str, rows: dict[str, dict[str, str]]) -> str:
    """A table as the page has it."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {name} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(cells.values())} |" for row, cells in rows.items())]) + "\n"


def main() -> None:
    known = tables()

    def replaced(match: re.Match[str]) -> str:
        name = match[0].split("|")[1].strip()
        return markdown(name, known[name]) if name in known else match[0]

    for page in PAGES:
        path = ROOT / page
        path.write_text(re.sub(r"(?:^\|.*\n)+", replaced, path.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
    main()
