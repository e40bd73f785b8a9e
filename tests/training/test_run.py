"""A training run: from images to a prior, stopped and resumed."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

pytest.importorskip("lightning")

from hggdp_plugin.apps.train import main
from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.models.refinenet import HGGDP_SIGMAS
from hggdp_plugin.prior import load_prior
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.training import module, progress, run
from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.config import Augmentation, ConfigError, TrainConfig
from hggdp_plugin.training.loss import denoising_loss
from hggdp_plugin.training.module import VALIDATION_SIGMAS
from hggdp_plugin.training.rollouts import RolloutPool

STEPS = 8


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINT_EVERY", 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.standard_normal((3, 20, 24)) + 1j * rng.standard_normal((3, 20, 24)))
    return path


def arguments(data, output, *more):
    small = ["--widths", "4", "12", "--crop", "16", "--batch-size", "2", "--steps", str(STEPS), "--val-every", "4"]
    return [str(data), "-o", str(output), *small, *more]


def weights(path):
    return load_model(path)[0].state_dict()


def assert_same_weights(a, b):
    for name, tensor in weights(a).items():
        torch.testing.assert_close(weights(b)[name], tensor, rtol=0, atol=0)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "p.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHECKPOINT_EVERY", 3)
        assert main(arguments(data, path)) == 0
    return path


def test_a_run_writes_a_prior(data, tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--val", str(data), "--float32")) == 0
    assert "Error" not in capsys.readouterr().err
    prior = load_prior(path, autocast=False)
    x = np.ones((20, 24), np.complex64)
    assert np.isfinite(prior.denoise(x, 0.1)).all()
    training = prior.description["training"]
    assert (training["steps"], training["images"], training["data"]) == (STEPS, 3, ["images.npy"])
    psnr = prior.description["validation_psnr"]
    assert list(psnr) == [f"{sigma:g}" for sigma in VALIDATION_SIGMAS]
    assert all(a > b for a, b in zip(psnr.values(), list(psnr.values())[1:], strict=False))
    rows = list(csv.DictReader(next((tmp_path / "p.safetensors.run").rglob("metrics.csv")).read_text().splitlines()))
    for column in ("psnr_0.1", "psnr_reconstruction", "loss", "loss_reconstruction"):
        assert any(row.get(column) for row in rows)
    assert prior.description["validation_reconstruction_psnr"] > 0
    assert any(b"psnr_0.1" in events.read_bytes() for events in tmp_path.rglob("events.out.tfevents*"))


def test_each_validation_has_a_picture(data, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--val", str(data))) == 0
    pictures = sorted(tmp_path.rglob("*.png"))
    assert [picture.name for picture in pictures] == ["samples-000004.png", "samples-000008.png"]
    first, last = (imread(picture) for picture in pictures)
    assert first.shape == last.shape
    assert (first != last).any()


def test_images_smaller_than_the_network_can_be_validated_on(data, tmp_path):
    np.save(tmp_path / "small.npy", np.ones((3, 2)) + 1j)
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--val", str(tmp_path / "small.npy"))) == 0
    assert all(np.isfinite(list(load_model(path)[1]["validation_psnr"].values())))


def test_the_written_weights_are_the_averaged_ones(data, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINT_EVERY", STEPS)
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path)) == 0
    state = torch.load(path.with_name("p.safetensors.run") / "last.ckpt", weights_only=False)
    assert state["global_step"] == STEPS
    average, latest = (state[key]["model.head.weight"] for key in ("state_dict", "current_model_state"))
    assert (average != latest).any()
    torch.testing.assert_close(weights(path)["head.weight"], average, rtol=0, atol=0)


def test_the_published_network_learns_at_the_published_learning_rate(tmp_path, monkeypatch):
    """Three views, ten levels, no warm-up, but narrow, small and short."""
    losses = []

    def recorded(*args):
        loss = denoising_loss(*args)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(module, "denoising_loss", recorded)
    data, path = tmp_path / "phantom.npy", tmp_path / "p.safetensors"
    np.save(data, head_phantom((72, 64), num_slices=3))
    published = {"architecture": "refinenet", "views": 3, "learning_rate": 0.005, "warmup": 0, "float32": True}
    run.train(TrainConfig(data=[data], output=path, **published, widths=[8], crop=32, batch_size=2, steps=40))
    assert len(losses) == 40
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


def test_a_network_can_be_trained_without_reconstructions(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--reconstructions", "0", "--val", str(data))) == 0
    assert "validation_reconstruction_psnr" not in load_model(path)[1]
    assert [load_model(p)[1]["training"]["rollouts"] for p in (path, undisturbed)] == [0, 1]
    assert (weights(path)["head.weight"] != weights(undisturbed)["head.weight"]).any()


def test_reconstructions_wait_for_a_new_network_but_not_for_a_trained_one(data, undisturbed, tmp_path, monkeypatch):
    steps: list[int] = []
    monkeypatch.setattr(RolloutPool, "training_step", lambda self, call: steps.append(call) or torch.zeros(()))
    assert main(arguments(data, tmp_path / "new.safetensors")) == 0
    assert steps == [6, 7]
    steps.clear()
    trained = ["--crop", "16", "--steps", "3", "--init", str(undisturbed)]
    assert main([str(data), "-o", str(tmp_path / "more.safetensors"), *trained]) == 0
    assert steps == [0, 1, 2]


def test_the_published_network_becomes_a_prior(data, tmp_path):
    path = tmp_path / "p.safetensors"
    published = ["--architecture", "refinenet", "--views", "3", "--widths", "2", "--steps", "2"]
    assert main(arguments(data, path, *published, "--val", str(data))) == 0
    network, description = load_model(path)
    assert description["architecture"] == "refinenet"
    assert (network.views, network.config["width"], network.sigmas) == (3, 2, HGGDP_SIGMAS)
    assert np.isfinite(load_prior(path).denoise(np.ones((20, 24), np.complex64), 0.1)).all()


class Killed(Exception):
    pass


def test_a_run_that_was_killed_ends_as_one_that_was_not(data, undisturbed, tmp_path, monkeypatch, capsys):
    path, draw, calls = tmp_path / "p.safetensors", BatchSource.draw, []

    def killed_at_the_sixth(self, n, generator):
        calls.append(n)
        if len(calls) == 6:
            raise Killed
        return draw(self, n, generator)

    with monkeypatch.context() as patch:
        patch.setattr(BatchSource, "draw", killed_at_the_sixth)
        with pytest.raises(Killed):
            main(arguments(data, path))
    assert not path.exists()
    capsys.readouterr()
    assert main(arguments(data, path)) == 0
    assert f"Continuing after step 3 of {STEPS}" in capsys.readouterr().out
    assert_same_weights(path, undisturbed)


def test_a_finished_run_started_again_writes_the_same(data, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path)) == 0
    first = tmp_path / "first.safetensors"
    path.rename(first)
    (metrics,) = tmp_path.rglob("metrics.csv")
    before = metrics.read_text()
    assert main(arguments(data, path)) == 0
    assert metrics.read_text() == before
    assert_same_weights(path, first)


def test_a_run_that_is_out_of_time_writes_what_is_there_and_goes_on_from_it(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    for steps in range(1, STEPS):
        assert main(arguments(data, path, "--max-time", "0s")) == 0
        assert load_model(path)[1]["training"]["steps"] == steps
        assert [file.name for file in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    assert main(arguments(data, path, "--max-time", "1d1h1m1s")) == 0
    assert_same_weights(path, undisturbed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--lr", "0.1"], "--lr 0.1: {} was started with 0.002; delete the folder"),
        (["--optimizer", "adamw"], "--optimizer adamw: {} was started with 'muon'; delete the folder"),
        (["--widths", "4", "4"], "--widths 4 4: {} was started with [4, 12]; delete the folder"),
        (["--without", "zoom"], "--augmentation "),
    ],
)
def test_a_run_does_not_go_on_with_other_arguments(change, said, data, tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--max-time", "0s")) == 0
    written = path.read_bytes()
    assert main(arguments(data, path, *change)) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert said.format(f"{path}.run") in printed
    assert path.read_bytes() == written


def test_the_length_of_a_run_may_change_and_the_prior_says_so(data, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--max-time", "0s")) == 0
    assert main(arguments(data, path, "--steps", "3")) == 0
    training = load_model(path)[1]["training"]
    assert (training["steps"], training["planned_steps"]) == (3, [STEPS, 3])


def test_a_finished_run_goes_on_when_steps_are_raised(data, tmp_path, monkeypatch):
    path, draw, drawn = tmp_path / "p.safetensors", BatchSource.draw, []
    assert main(arguments(data, path)) == 0
    monkeypatch.setattr(BatchSource, "draw", lambda self, n, generator: drawn.append(n) or draw(self, n, generator))
    assert main(arguments(data, path, "--steps", str(STEPS + 3))) == 0
    assert len(drawn) == 3
    assert load_model(path)[1]["training"]["planned_steps"] == [STEPS, STEPS + 3]


def test_the_folder_of_another_version_is_refused(data, tmp_path, capsys):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--max-time", "0s")) == 0
    (tmp_path / "p.safetensors.run" / "config.json").unlink()
    assert main(arguments(data, path)) == 2
    assert "p.safetensors.run is of another version; delete the folder" in capsys.readouterr().err


def test_one_trains_from_python_as_from_the_command_line(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    small = {"widths": [4, 12], "crop": 16, "batch_size": 2, "steps": STEPS, "validate_every": 4}
    description = run.train(TrainConfig(data=[data], output=path, **small))
    assert_same_weights(path, undisturbed)
    assert description == {k: v for k, v in load_model(path)[1].items() if k not in ("architecture", "config")}
    with pytest.raises(ConfigError, match=r"learning_rate=0\.1: "):
        run.train(TrainConfig(data=[data], output=path, **small, learning_rate=0.1))


def test_domains_are_listed_and_weighed(data, tmp_path, capsys):
    np.save(tmp_path / "magnitude.npy", np.random.default_rng(0).random((2, 20, 24)))
    path = tmp_path / "p.safetensors"
    more = ["--synthetic", "1", "--domain-weights", "regions=0", "dead_leaves=0.5", "--augmentation", "broad"]
    assert main([str(tmp_path / "magnitude.npy"), *arguments(data, path, *more, "--steps", "1")]) == 0
    printed = capsys.readouterr().out
    assert "Training images: images 5, dead_leaves 1\n" in printed
    assert "2 of them are magnitude images: each gets a random smooth phase" in printed
    training = load_model(path)[1]["training"]
    assert training["domains"] == {"images": 5, "dead_leaves": 1}
    assert training["augmentation"] == vars(Augmentation.broad())


def test_the_screen_shows_the_run_and_no_hints_of_others(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PACE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINES_EVERY", 0.0)
    assert main(arguments(data, tmp_path / "p.safetensors")) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert not printed.err
    assert lines[0] == "Training images: images 3"
    assert re.fullmatch(
        r"[\d.e-]+ s a step: the 4 steps left take about \d+ s", next(x for x in lines if "s a step" in x)
    )
    assert any(re.fullmatch(rf"step [57] of {STEPS}, loss [\d.]+, about \d+ s left", line) for line in lines)
    assert lines[-1] == f"{tmp_path / 'p.safetensors'}: the prior after {STEPS} of {STEPS} steps"
    assert not [line for line in lines if "tip" in line.lower() or "GPU" in line]


def start_long_run(data, path):
    """Start a run that takes minutes, in a process of its own, and wait until it has made some steps."""
    command = arguments(data, path, "--steps", "100000", "--reconstructions", "0")
    log = path.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "hggdp_plugin.apps.train", *command],
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    checkpoint, end = path.with_name(path.name + ".run") / "last.ckpt", time.monotonic() + 200
    while not checkpoint.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.2)
    return process, log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_checkpoint_and_prior_of_the_steps_done(number, data, tmp_path):
    path = tmp_path / "p.safetensors"
    process, log = start_long_run(data, path)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    printed = log.read_text()
    (steps,) = re.findall(rf"Stopped by {number.name} after (\d+) of 100000 steps", printed)
    assert "Traceback" not in printed
    assert load_model(path)[1]["training"]["steps"] == int(steps) > 0
    state = torch.load(path.with_name("p.safetensors.run") / "last.ckpt", weights_only=False)
    assert state["global_step"] == int(steps)
    more = str(int(steps) + 2)
    assert main(arguments(data, path, "--steps", more, "--reconstructions", "0")) == 0
    assert load_model(path)[1]["training"]["steps"] == int(more)


def test_augmentation_can_be_left_out(data, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--max-time", "0s", "--without", "zoom", "smooth_phase")) == 0
    assert load_model(path)[1]["training"]["augmentation"] == vars(Augmentation(zoom=1.0, smooth_phase=0.0))


def test_a_compiled_network_trains_to_the_same_weights(data, undisturbed, tmp_path, monkeypatch):
    """Compiled by the tracer alone: code generation takes minutes, and a compiler."""
    compiled, calls = torch.compile, []

    def traced(function, **options):
        calls.append(options)
        return compiled(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--compile")) == 0
    assert calls == [{"dynamic": False}]
    assert_same_weights(path, undisturbed)


def test_a_training_that_diverges_stops_and_writes_no_prior(data, tmp_path, capsys, monkeypatch):
    draw, drawn = BatchSource.draw, []

    def counted(self, n, generator):
        drawn.append(n)
        return draw(self, n, generator)

    monkeypatch.setattr(BatchSource, "draw", counted)
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--lr", "1e30")) == 2
    assert "--lr 1e+30: the training has diverged" in capsys.readouterr().err.splitlines()[-1]
    assert not path.exists()
    assert not list(tmp_path.rglob("*.ckpt"))
    assert len(drawn) == 3  # until the first checkpoint was due


def run_two_processes(folder, stop_at, *arguments):
    """Train in two processes; return the exit code and the last line on the screen."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ddp_ranks.py"), folder, str(stop_at), *arguments, "--devices", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


def test_two_processes_train_stop_and_resume_together(data, tmp_path):
    """A signal to one stops both, and the weights are always the same in both."""
    path, whole = tmp_path / "p.safetensors", tmp_path / "whole.safetensors"
    steps = ("--steps", "4")
    code, line = run_two_processes(tmp_path, 2, *arguments(data, path, *steps))
    assert code == 143, line
    assert load_model(path)[1]["training"]["steps"] == 2
    for output in (path, whole):  # the first resumes
        code, line = run_two_processes(tmp_path, 0, *arguments(data, output, *steps, "--val", str(data)))
        assert code == 0, line
        training = load_model(output)[1]["training"]
        assert (training["steps"], training["devices"]) == (4, 2)
        first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
        for name, tensor in weights(output).items():
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=0)
    assert_same_weights(path, whole)
    one = tmp_path / "one.safetensors"
    assert main(arguments(data, one, *steps)) == 0
    assert (weights(path)["tail.weight"] != weights(one)["tail.weight"]).any()  # the other's batches have their part


def test_a_prior_can_be_the_start_of_another(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "--init", str(undisturbed), "--lr", "0")) == 0
    for name, tensor in weights(undisturbed).items():
        torch.testing.assert_close(weights(path)[name], tensor)  # averaging rounds
    assert load_model(path)[1]["training"]["init"] == str(undisturbed)


def test_a_prior_can_keep_a_part_of_the_one_it_began_with(data, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINT_EVERY", STEPS)
    path, parts, measured = tmp_path / "p.safetensors", {}, []
    for part in ("0", "0.25", "1"):  # the second and third of the finished run
        more = ["--init", str(undisturbed), "--lr", "0.1", "--val", str(data), "--keep", part]
        assert main(arguments(data, path, *more)) == 0
        parts[part] = weights(path)
        measured.append(load_model(path)[1]["validation_psnr"])
    assert load_model(path)[1]["training"]["init_weight"] == 1
    assert measured[0] != measured[1] != measured[2]
    assert (parts["0"]["head.weight"] != parts["1"]["head.weight"]).all()
    for name, first in weights(undisturbed).items():
        torch.testing.assert_close(parts["1"][name], first)
        torch.testing.assert_close(parts["0.25"][name], 0.75 * parts["0"][name] + 0.25 * first)


def test_a_prior_can_start_a_deeper_one(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    deeper = ["--init", str(undisturbed), "--blocks", "3", "--phase-pixels", "4"]
    assert main(arguments(data, path, *deeper, "--lr", "0")) == 0
    config, after = load_model(path)[0].config, weights(path)
    assert (config["blocks"], config["phase_resolution"]) == (3, 4)
    for name, tensor in weights(undisturbed).items():
        torch.testing.assert_close(after[name], tensor)  # averaging rounds
    assert not after["encoder.0.2.conv2.weight"].any()


def test_a_network_without_phase_is_trained_on_images_without_it(data, tmp_path, monkeypatch):
    seen = []

    def loss(denoiser, x, sigma, noise):
        seen.append(x)
        return denoising_loss(denoiser, x, sigma, noise)

    monkeypatch.setattr(module, "denoising_loss", loss)
    # The phase is as uncertain as the level of the noise makes it.
    monkeypatch.setattr(module, "draw_sigma", lambda model, n, generator: torch.full((n,), 1e-7))
    for pixels in ("0", "1"):
        path = tmp_path / f"{pixels}.safetensors"
        assert main(arguments(data, path, "--phase-pixels", pixels, "--steps", "1")) == 0
    assert (seen[0][:, 1].abs() > 0.1).any()
    torch.testing.assert_close(seen[1], torch.stack([seen[0].norm(dim=1), torch.zeros(2, 16, 16)], dim=1))


def test_processors_without_bfloat16_train_in_float32(data, tmp_path, monkeypatch):
    path, float32 = tmp_path / "p.safetensors", tmp_path / "float32.safetensors"
    assert main(arguments(data, float32, "--float32", "--steps", "2")) == 0
    monkeypatch.setattr(run, "has_bfloat16", lambda device: False)
    assert main(arguments(data, path, "--steps", "2")) == 0
    assert_same_weights(path, float32)


def test_another_seed_is_another_run(data, undisturbed, tmp_path):
    path = tmp_path / "p.safetensors"
    assert main(arguments(data, path, "-s", "4000000000")) == 0
    assert (weights(path)["head.weight"] != weights(undisturbed)["head.weight"]).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--crop", "18"], "--crop 18: the network's levels cannot halve it; give a multiple of 4"),
        (["--views", "3", "--reconstructions", "1"], "--rollouts 1: only for the U-Net with one view"),
        (["--architecture", "refinenet"], "--widths 4 12: refinenet takes one number"),
        (["--architecture", "refinenet", "--widths", "2", "--blocks", "2"], "--blocks 2: only the U-Net has it"),
        (["--init", "brain-t2", "--blocks", "1"], "--blocks 1: 1 are fewer than"),
        (["--init", "no-such-prior"], "--init no-such-prior: neither a file nor one of"),
        (["--keep", "0.5"], "--init-weight 0.5: there is nothing to average with"),
        (["--val", "no-such-file.npy"], "no-such-file.npy"),
        (["--domain-weights", "knee=1"], "knee: there is no such domain"),
        (["--domain-weights", "images=0"], "all are 0"),
        (["-o", "prior.pth"], "--output"),
        (["-o", "no-such-folder/p.safetensors"], "--output"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, said, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments(data, tmp_path / "p.safetensors", *change)) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "change",
    [
        ["--steps", "0"],
        ["--views", "-1"],
        ["--phase-pixels", "-1"],
        ["--keep", "1.5"],
        ["--keep", "nearly all"],
        ["--max-time", "2 hours"],
        ["--max-time", ""],
        ["--devices", "0"],
        ["--without", "noise"],
        ["--domain-weights", "knee"],
        ["--domain-weights", "knee=-1"],
        ["--budget", "soon"],
    ],
)
def test_values_that_make_no_sense_are_refused(change, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments(data, tmp_path / "p.safetensors", *change))
    assert stop.value.code == 2
    assert change[0] in capsys.readouterr().err
