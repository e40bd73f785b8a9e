"""Many slices: in batches chosen from the memory, with a progress bar, and continued after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from hggdp_plugin import io
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.volume import batch, batching, calibration, progress

SLICES = 6


@pytest.fixture
def command(tmp_path, monkeypatch, make_network):
    """The options of a reconstruction of six slices in batches of two; float32, in which a batch's size rounds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batching, "slices_that_fit", lambda *args: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one batch after the other
    save_model("tiny.safetensors", make_network(), {})
    rng = np.random.default_rng(0)
    ksp = rng.standard_normal((SLICES, 3, 40, 36)) + 1j * rng.standard_normal((SLICES, 3, 40, 36))
    ksp[..., 17:23, 15:21] *= 30
    np.save("ksp.npy", ksp * (rng.random((40, 36)) < 0.5))
    return ["ksp.npy", "--prior", "tiny.safetensors", "--float32", "--complex", "-N", "3"]


@pytest.fixture
def apps(monkeypatch):
    """Counts the batches that are reconstructed; ``stop`` is the one at which the user interrupts."""

    class Counted(batch.BatchRecon):
        seen, stop = 0, None

        def __init__(self, *args, **options):
            Counted.seen += 1
            if Counted.seen == Counted.stop:
                raise KeyboardInterrupt
            super().__init__(*args, **options)

    monkeypatch.setattr(batch, "BatchRecon", Counted)
    return Counted


def content(name):
    with open(name, "rb") as file:
        return file.read()


def test_a_killed_run_continues_to_the_same_file(command, apps, tmp_path, capsys):
    command = [*command, "--batch-size", "2", "-N", "80"]
    assert main([*command, "-o", "whole.npy"]) == 0
    run = [sys.executable, "-m", "hggdp_plugin.apps.recon", *command, "-o", "out.npy", "-q"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(run, env=environment)
    part = tmp_path / "out.npy.part"
    deadline = time.monotonic() + 120
    while not (part / "0.npy").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out.npy").exists()
    finished = [name for name in ("0.npy", "2.npy", "4.npy") if (part / name).exists()]
    assert 1 <= len(finished) < 3
    apps.seen = 0
    capsys.readouterr()
    assert main([*command, "-o", "out.npy"]) == 0
    assert f"{2 * len(finished)} of 6 slices are finished already" in capsys.readouterr().out
    assert apps.seen == 3 - len(finished)
    assert content("out.npy") == content("whole.npy")
    assert not part.exists()


def test_an_interrupted_run_says_so_and_keeps_its_batches(command, apps, tmp_path, monkeypatch, capsys):
    assert main([*command, "-o", "whole.npy"]) == 0
    apps.seen, apps.stop = 0, 3
    assert main([*command, "-o", "out.npy"]) == 130
    assert "the same command continues" in capsys.readouterr().out
    kept = sorted(path.name for path in (tmp_path / "out.npy.part").iterdir())
    assert kept == ["0.json", "0.npy", "2.json", "2.npy", "run.json"]
    apps.seen, apps.stop = 0, None
    monkeypatch.setattr(batching, "slices_that_fit", lambda *args: 3)  # the memory has changed, the batches stay
    assert main([*command, "-o", "out.npy"]) == 0
    assert apps.seen == 1
    assert content("out.npy") == content("whole.npy")
    estimates = [json.loads(content(f"{name}.npy.json"))["estimates"] for name in ("out", "whole")]
    assert estimates[0] == estimates[1]
    assert [entry["frame"][4] for entry in estimates[0]] == list(range(SLICES))


@pytest.mark.parametrize(
    "change", ["-s 1", "-N 4", "-S 2", "-r 1", "--batch-size 2", "data", "prior"], ids=lambda change: change.strip("-")
)
def test_another_run_starts_over_and_says_so(change, command, apps, make_network, capsys):
    apps.stop = 3
    assert main([*command, "-o", "out.npy"]) == 130
    if change == "data":
        np.save("ksp.npy", 2 * np.load("ksp.npy"))
    elif change == "prior":
        network = make_network()
        next(network.parameters()).data += 0.01
        save_model("tiny.safetensors", network, {})
    else:
        command = [*command, *change.split()]
    apps.stop = None
    assert main([*command, "-o", "whole.npy"]) == 0
    capsys.readouterr()
    assert main([*command, "-o", "out.npy"]) == 0
    assert "starting over" in capsys.readouterr().out
    assert content("out.npy") == content("whole.npy")


def test_a_folder_of_the_users_is_left_alone(command, tmp_path, capsys):
    folder = tmp_path / "out.npy.part"
    folder.mkdir()
    (folder / "thesis.txt").write_text("five years")
    assert main([*command, "-o", "out.npy", "-q"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (folder / "run.json").write_text("[1]")
    assert main([*command, "-o", "out.npy", "-q"]) == 2
    assert (folder / "thesis.txt").read_text() == "five years"
    assert not (tmp_path / "out.npy").exists()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "is_interactive", lambda: True)


def test_the_bar_and_the_log_show_how_long_it_takes(command, terminal, capsys):
    assert main([*command, "-o", "out.npy"]) == 0
    said = capsys.readouterr()
    assert "4 slices to go, 2 at a time: about 00:0" in said.out
    assert "/6 slices [" in said.err
    assert "slice/s" in said.err
    assert main([*command, "-o", "quiet.npy", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_the_progress_is_in_lines(command, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    for size in "26":  # several batches, and one
        assert main([*command, "-o", f"{size}.npy", "--batch-size", size]) == 0
        out, err = capsys.readouterr()
        lines = [line for line in out.splitlines() if " of 6 slices, 00:0" in line]
        assert len(lines) == 3 * 6 // int(size)
        assert lines[-1].startswith("6.0 of 6 slices")
        assert lines[-1].endswith("about 00:00 left.")
        assert err == ""


def test_a_single_batch_in_a_terminal_has_the_bar_of_the_app(command, terminal, capsys):
    assert main([*command, "-o", "out.npy", "--batch-size", "6"]) == 0
    bar = capsys.readouterr().err
    assert "HGGDPRecon: 100%" in bar
    assert "level=3/3" in bar


def test_a_single_batch_is_not_kept(command, apps, tmp_path):
    apps.stop = 1
    assert main([*command, "-o", "out.npy", "--batch-size", "6"]) == 130
    assert not (tmp_path / "out.npy.part").exists()


def test_the_image_does_not_depend_on_the_batches(command):
    for size in "126":
        assert main([*command, "-o", f"{size}.npy", "--batch-size", size]) == 0
    images = [np.load(f"{size}.npy") for size in "126"]
    for image in images[1:]:
        np.testing.assert_allclose(image, images[0], atol=1e-5 * abs(images[0]).max())


def test_maps_are_made_once_for_all_frames(tmp_path, monkeypatch):
    made = []

    def count(ksp, *args, **options):
        made.append(1)
        return np.ones(ksp.shape, np.complex64) / 2

    monkeypatch.setattr(calibration.coil_maps, "espirit_maps", count)
    np.save(tmp_path / "ksp.npy", np.ones((2, 4, 32, 32), np.complex64))
    raw = io.read_kspace(tmp_path / "ksp.npy")
    raw = replace(raw, ksp=np.repeat(raw.ksp, 3, axis=0))
    maps = calibration.CoilMapEstimator(raw)
    for number in (0, 1, 0, 1):
        maps(number)
    assert len(made) == 2
