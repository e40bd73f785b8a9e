"""The self-check of a measurement, and what hggdp recon does with it."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from hggdp_plugin import io, load_prior
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.selfcheck import SelfCheck
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.volume.selfcheck import VolumeCheck, check_frames, report_check


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that hardly changes the image: a prior that knows nothing."""
    path = tmp_path_factory.mktemp("prior") / "untrained.safetensors"
    save_model(path, UNet(widths=(8, 8), blocks=1), {})
    return str(path)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    np.save(folder / "phantom.npy", head_phantom((96, 96), num_slices=3))
    options = "--mask random -R 3 --calib 24 --coils 4 --snr 40 --noise-scan"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    return folder / "raw.h5"


def test_every_frame_is_checked_or_some_evenly_spaced(scan: Path, untrained: str) -> None:
    raw = io.read_raw(scan)
    priors = {"untrained": load_prior(untrained)}
    every = check_frames(raw, priors)
    assert every.frames == tuple((0, 0, 0, 0, slice_) for slice_ in range(3))
    assert every.checks["untrained"].prediction_error.shape == (3,)
    some = check_frames(raw, priors, n_frames=2)
    assert [frame[4] for frame in some.frames] == [0, 2]
    both = every.checks["untrained"], some.checks["untrained"]
    np.testing.assert_array_equal(both[0].prediction_error[[0, 2]], both[1].prediction_error)
    np.testing.assert_allclose(both[0].noise_var, 1, rtol=1e-5)  # the file has a noise scan


def check(errors: list[float], residuals: list[float]) -> SelfCheck:
    return SelfCheck(np.array(errors), np.array(residuals), np.ones(len(errors)), np.full(len(errors), 100))


def test_the_best_prior_has_the_lowest_error_and_warnings_name_the_slices(caplog: pytest.LogCaptureFixture) -> None:
    frames = tuple((0, 0, 0, 0, slice_) for slice_ in range(3))
    checks = {"a": check([0.9, 0.5, 1.2], [0.9, 1, 3]), "b": check([0.4, 0.3, np.nan], [np.nan] * 3)}
    volume = VolumeCheck(frames, checks)
    assert volume.best == "b"
    caplog.set_level(logging.INFO)
    assert "0.50 to 1.20 of the error of wavelets (by slice: 0.90 0.50 1.20)" in report_check(volume, "a")
    unfit, inconsistent = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "2 of 3 slices checked: 1, 3" in unfit
    assert "--prior" in unfit
    assert "1 of 3 slices checked: 3" in inconsistent
    assert "motion" in inconsistent
    caplog.clear()
    report_check(volume, "b")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    last = json.loads(json.dumps(volume.records("b")))[2]
    assert last == {
        "frame": [0, 0, 0, 0, 2],
        "prediction_error": None,
        "residual": None,
        "prior_fits": True,
        "data_consistent": True,
    }


def test_recon_checks_itself_where_it_is_asked_to(
    scan: Path, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "image.npy"
    command = [str(scan), "-o", str(output), "--prior", untrained, "-N", "3", "--float32"]
    assert main(command) == 0
    assert json.loads(Path(f"{output}.json").read_text())["self_check"] == []
    plain = np.load(output)
    capsys.readouterr()
    assert main([*command, "--self-check", "--overwrite"]) == 0
    said = capsys.readouterr()
    assert "Self-check of 3 slices" in said.out + said.err
    record = json.loads(Path(f"{output}.json").read_text())
    assert [one["frame"][4] for one in record["self_check"]] == [0, 1, 2]
    np.testing.assert_array_equal(np.load(output), plain)


def test_recon_chooses_among_the_bundled_priors(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: str
) -> None:
    names = ["brain-t2", untrained]
    monkeypatch.setattr("hggdp_plugin.apps._recon_job.bundled_priors", lambda: names[::-1])
    output = tmp_path / "image.npy"
    assert main([str(scan), "-o", str(output), "--prior", "auto", "-N", "2", "-q"]) == 0
    record = json.loads(Path(f"{output}.json").read_text())
    assert record["options"]["prior"] == "brain-t2"
    assert len(record["self_check"]) == 3
