"""CPU and wall time until a command answers, and of importing the package; beside an older revision in the same run.

The older revision is checked out into a temporary git worktree. Both trees run in turns; medians count.

    python benchmarks/startup.py --against ffa71b9 --json startup.json
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import print_table, report

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "hggdp --help": ["-m", "hggdp_plugin.apps", "--help"],
    "hggdp recon --help": ["-m", "hggdp_plugin.apps", "recon", "--help"],
    "hggdp recon with a mistyped file name": ["-m", "hggdp_plugin.apps", "recon", "missing.h5"],
    "hggdp evaluate with a mistyped file name": ["-m", "hggdp_plugin.apps", "evaluate", "a.npy", "--reference", "b.h5"],
    "import hggdp_plugin": ["-c", "import hggdp_plugin"],
    "from hggdp_plugin import HGGDPRecon": ["-c", "from hggdp_plugin import HGGDPRecon"],
}


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A temporary worktree of a revision."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", folder, revision], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True, capture_output=True)


def measure(command: list[str], tree: Path, folder: str) -> tuple[float, float]:
    """CPU and wall seconds of a Python command that runs the package of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--against", metavar="REV", help="older git revision to measure too")
    p.add_argument("--repeats", type=int, default=5, help="runs of every command (default 5)")
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder, checked_out(args.against or "HEAD") as old:
        trees = {"this tree": ROOT} | ({args.against: old} if args.against else {})
        rows = {}
        for name, command in COMMANDS.items():
            times: dict[str, list[tuple[float, float]]] = {tree: [] for tree in trees}
            for _ in range(args.repeats + 1):
                for tree, path in trees.items():
                    times[tree].append(measure(command, path, folder))
            # The first run of each fills the file cache and compiles the modules.
            rows[name] = [statistics.median(column) for tree in trees for column in zip(*times[tree][1:], strict=True)]
    columns = [f"{tree}, {kind} (s)" for tree in trees for kind in ("CPU", "wall")]
    print_table(columns, rows)
    report(args, {"columns": columns, "commands": rows})


if __name__ == "__main__":
    main()
