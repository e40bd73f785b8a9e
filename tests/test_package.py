"""The public names, and that they cost nothing until they are used."""

import subprocess
import sys

import pytest

import hggdp_plugin


def test_public_names_are_there():
    for name in hggdp_plugin.__all__:
        assert getattr(hggdp_plugin, name).__name__ == name


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hggdp_plugin.no_such_name


def test_the_package_loads_without_torch():
    code = "import sys, hggdp_plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
