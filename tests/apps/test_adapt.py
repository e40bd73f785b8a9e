"""hggdp adapt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hggdp_plugin import load_prior
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.network import ScoreNetwork
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.selfcheck import SliceData
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.training.adaptation import adapt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small undersampled scan, and an untrained prior."""
    folder = tmp_path_factory.mktemp("scan")
    np.save(folder / "phantom.npy", head_phantom((64, 64), num_slices=3))
    options = "--mask random -R 2 --calib 24 --coils 4 --snr 40 --noise-scan"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    save_model(folder / "untrained.safetensors", UNet(widths=(8, 8), blocks=1), {"note": "untrained"})
    return folder


def run(folder: Path, output: Path, *options: str) -> int:
    prior = str(folder / "untrained.safetensors")
    return hggdp(["adapt", str(folder / "raw.h5"), "-o", str(output), "--prior", prior, *options])


def test_the_adapted_prior_is_written_with_the_figures_before_and_after(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def learn(network: ScoreNetwork, slices: list[SliceData], *, steps: int, **options: Any) -> ScoreNetwork:
        """Adapt, but return a prior that is surely better; tests/training/test_adaptation.py tests the learning."""
        adapted = adapt(network, slices, steps=steps, **options)
        assert type(adapted) is type(network)
        return load_model("brain-t2")[0]

    monkeypatch.setattr("hggdp_plugin.training.adaptation.adapt", learn)
    output = tmp_path / "mine.safetensors"
    assert run(folder, output, "--steps", "20", "--slices", "2") == 0
    said = capsys.readouterr().out
    assert "Error of held-out samples relative to wavelets" in said
    assert "step 20 of 20" in said
    prior = load_prior(output)
    adaptation = prior.description["adaptation"]
    assert adaptation["slices"] == 2
    assert adaptation["prediction_error"]["after"] < adaptation["prediction_error"]["before"]
    assert prior.description["note"] == "untrained"
    image = tmp_path / "image.npy"
    assert hggdp(["recon", str(folder / "raw.h5"), "-o", str(image), "--prior", str(output), "-N", "2", "-q"]) == 0
    assert json.loads(Path(f"{image}.json").read_text())["options"]["prior"] == str(output)


def test_a_prior_that_got_no_better_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(network: ScoreNetwork, slices: object, **options: object) -> ScoreNetwork:
        return network

    monkeypatch.setattr("hggdp_plugin.training.adaptation.adapt", spoil)
    output = tmp_path / "mine.safetensors"
    assert run(folder, output) == 1
    assert "no better" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [(["--lr", "0"], "--lr 0"), (["--prior", "nothing"], "nothing"), (["-o", "prior.pt"], "prior.pt")],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    folder: Path, tmp_path: Path, options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path / "mine.safetensors", *options) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "mine.safetensors").exists()


def test_an_output_that_exists_stays(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    output.write_bytes(b"precious")
    assert run(folder, output) == 2
    assert output.read_bytes() == b"precious"
