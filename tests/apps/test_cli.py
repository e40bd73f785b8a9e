import os
import subprocess
import sys

import pytest

from hggdp_plugin.apps._cli import run
from hggdp_plugin.io import InputError


def raising(error):
    def command(argv):
        raise error

    return command


def test_the_exit_code_is_the_commands(capsys):
    assert run("x", lambda argv: None, []) == 0
    assert run("x", lambda argv: len(argv), ["a", "b", "c"]) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [InputError("raw.h5", "it is\nbroken", "mend it"), OSError("disk\n full")])
def test_what_the_user_can_mend_is_one_line(error, capsys):
    assert run("recon", raising(error), []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hggdp recon: ")
    assert err.count("\n") == 1


def test_an_interrupt_is_quiet(capsys):
    assert run("recon", raising(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("recon", raising(ZeroDivisionError()), [])


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX pipe")
def test_a_reader_that_has_gone_is_no_error():
    code = "import sys; from hggdp_plugin.apps._cli import run; sys.exit(run('x', lambda argv: print('some text')))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1
