"""What answers at once must not load PyTorch, which SigPy imports, nor other heavy packages.

NumPy must not be loaded either before its threads are set.
"""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "sigpy", "scipy", "matplotlib", "skimage", "lightning")
CODE = """
import sys
from hggdp_plugin.apps.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("exit code", code, "loaded", *(name for name in {heavy!r} if name in sys.modules))
"""


def loaded(*argv, code=CODE):
    """Runs the command in a process of its own; returns its exit code and which of the heavy packages it loaded."""
    command = [sys.executable, "-c", code.format(heavy=HEAVY), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()[-1].split()
    return int(words[2]), words[4:]


@pytest.mark.parametrize("command", ["recon", "train", "simulate", "evaluate", "convert"])
def test_help_loads_nothing_heavy(command):
    code, packages = loaded(command, "--help")
    assert code == 0
    assert packages in ([], ["numpy"] if command == "train" else [])


@pytest.mark.parametrize(
    "argv",
    [
        ["recon", "missing.h5"],
        ["recon", "examples/phantom.h5", "--mps", "missing.npy"],
        ["evaluate", "missing.npy", "--reference", "missing.h5"],
        ["simulate", "missing.npy", "-o", "raw.h5"],
        ["convert", "missing.pth", "prior.safetensors"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_mistyped_file_name_loads_nothing_heavy(argv, tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "phantom.h5").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert loaded(*argv) == (2, [])


def test_the_package_loads_nothing_heavy():
    code = "import sys, hggdp_plugin; print('exit code', 0, 'loaded', *(n for n in {heavy!r} if n in sys.modules))"
    assert loaded(code=code) == (0, [])
