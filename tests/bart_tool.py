"""BART for tests: its command line tool, or the wheel ``bartorch``, which contains BART."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# The wheel's own command line replaces some of BART's commands by Python; this runs BART's.
_WHEEL = """
import sys
from bartorch._dispatch import run_command
code, printed, failed = run_command(sys.argv[1:])
print(printed, end="")
sys.exit(failed or (f"exit code {code}" if code else 0))
"""


def bart_command() -> list[str] | None:
    """The command that runs BART, or None where there is none."""
    if path := shutil.which("bart"):
        return [path]
    return [sys.executable, "-c", _WHEEL] if find_spec("bartorch") else None


needs_bart = pytest.mark.skipif(bart_command() is None, reason="BART is not installed (pip install bartorch)")


def bart(command: str, folder: Path | None = None) -> str:
    """Run a BART command and return what it prints."""
    run = [*(bart_command() or []), *command.split()]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"bart {command}: {done.stderr}"
    return done.stdout
