import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from hggdp_plugin import __version__
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps._cli import run, set_quiet
from hggdp_plugin.io import InputError


def raising(error):
    def command(argv):
        raise error

    return command


def test_the_exit_code_is_the_commands(capsys):
    assert run("x", lambda argv: None, []) == 0
    assert run("x", lambda argv: len(argv), ["a", "b", "c"]) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [InputError("raw.h5", "it is\nbroken", "fix it"), OSError("disk\n full")])
def test_what_the_user_can_fix_is_one_line(error, capsys):
    assert run("recon", raising(error), []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hggdp recon: ")
    assert err.count("\n") == 1


def test_an_interrupt_is_quiet(capsys):
    assert run("recon", raising(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("recon", raising(ZeroDivisionError()), [])


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX pipe")
def test_a_closed_pipe_is_not_an_error():
    code = "import sys; from hggdp_plugin.apps._cli import run; sys.exit(run('x', lambda argv: print('some text')))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1


def test_the_dispatcher_names_its_commands_and_its_version(capsys):
    assert hggdp([]) == 0
    assert "recon" in capsys.readouterr().out
    assert hggdp(["--version"]) == 0
    assert capsys.readouterr().out == f"hggdp_plugin {__version__}\n"
    assert hggdp(["recno"]) == 2
    assert "recon" in capsys.readouterr().err


def test_the_log_of_the_package_is_on_the_screen_while_a_command_runs(capsys):
    logger = logging.getLogger("hggdp_plugin.somewhere")

    def command(argv):
        logger.info("information")
        logger.warning("doubt")
        set_quiet(True)
        logger.info("more information")
        logger.warning("more doubt")

    assert run("x", command, []) == 0
    logger.info("nobody listens any more")
    assert capsys.readouterr() == ("information\n", "warning: doubt\nwarning: more doubt\n")


def test_a_module_run_as_a_script_logs_too(tmp_path):
    np.save(tmp_path / "ksp.npy", np.exp(-np.hypot(*np.mgrid[-16:16, -16:16]))[None].astype(np.complex64))
    command = [sys.executable, "-m", "hggdp_plugin.apps.recon", "ksp.npy", "-N", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "ksp.npy: 2D cartesian, 1 coils, 32 x 32 k-space" in done.stdout
    assert "Wrote ksp_hggdp.npy" in done.stdout
