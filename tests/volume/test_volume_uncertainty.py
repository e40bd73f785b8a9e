"""hggdp recon --uncertainty: the standard error of a measurement, in every output."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hggdp_plugin import io, load_prior
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.volume import batch as module
from hggdp_plugin.volume.reconstruct import reconstruct
from hggdp_plugin.volume.resume import ResumeStore
from hggdp_plugin.volume.uncertainty import VolumeUncertainty, describe

SLICES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    np.save(folder / "phantom.npy", head_phantom((40, 36), num_slices=SLICES))
    options = "--mask random -R 2 --calib 16 --coils 4 --snr 30 --noise-scan"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    return folder


def recon(folder: Path, *options: object) -> int:
    given = [folder / "raw.h5", "--prior", folder / "tiny.safetensors", "-N", "3", "--float32", *options]
    return main([str(option) for option in given])


def test_files_log_record_and_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    assert recon(folder, "--uncertainty", "-o", tmp_path / "out.npy", "--report", report) == 0
    out, err = capsys.readouterr()
    assert "Slice 3: expected PSNR" in out
    assert "the standard error is probably too small" in err  # this prior has no calibration
    image, std = (io.read_images(tmp_path / name) for name in ("out.npy", "out_std.npy"))
    assert std.shape == image.shape
    assert (std > 0).all()
    record = json.loads((tmp_path / "out.npy.json").read_text())["uncertainty"]
    assert record["sampling"] == "lines, coils"
    assert record["conformal_factor"] is None
    assert [frame["frame"][4] for frame in record["frames"]] == [0, 1, 2]
    assert record["frames"][0]["psnr"] == pytest.approx(
        20 * np.log10(abs(image[0, 0, 0, 0, 0]).max() / np.sqrt(np.mean(std[0, 0, 0, 0, 0] ** 2))), abs=0.01
    )
    assert "standard error" in report.read_text()


def test_the_image_is_the_same_with_and_without(folder: Path, tmp_path: Path) -> None:
    assert recon(folder, "-o", tmp_path / "a.h5") == 0
    assert recon(folder, "--uncertainty", "-o", tmp_path / "b.h5") == 0
    np.testing.assert_array_equal(io.read_images(tmp_path / "a.h5"), io.read_images(tmp_path / "b.h5"))
    with h5py.File(tmp_path / "b.h5") as file:
        assert set(file["dataset"]) == {"image_0", "image_1"}
        assert file["dataset/image_1/data"].shape == (SLICES, 1, 1, 40, 36)


def test_an_error_map_is_not_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out_std.npy").touch()
    assert recon(folder, "--uncertainty", "-o", tmp_path / "out.npy") == 2
    assert "out_std.npy" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


def test_resumed_runs_give_the_same_map(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one slice after the other
    raw, prior = io.read_raw(folder / "raw.h5"), load_prior(folder / "tiny.safetensors", autocast=False)
    options = {"prior": prior, "batch_size": 1, "show_pbar": False}
    whole, again = VolumeUncertainty(copies=2), VolumeUncertainty(copies=2)
    image = reconstruct(raw, uncertainty=whole, **options)
    real, calls = module.batch_std, []

    def stop_at_the_second(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "batch_std", stop_at_the_second)
    store = ResumeStore(tmp_path / "part")
    with pytest.raises(KeyboardInterrupt):
        reconstruct(raw, uncertainty=again, resume=store, **options)
    resumed = reconstruct(raw, uncertainty=again, resume=store, **options)
    assert len(calls) == 4  # the first slice was not made again
    np.testing.assert_array_equal(resumed, image)
    np.testing.assert_array_equal(again.std, whole.std)
    assert again.frames == whole.frames


def test_prewhitened_data_have_noise_of_variance_1(folder: Path) -> None:
    """Where the data are whitened the map is not below what least squares would make of the noise."""
    raw, prior = io.read_raw(folder / "raw.h5"), load_prior(folder / "tiny.safetensors", autocast=False)
    assert raw.whitened
    found = VolumeUncertainty(copies=2)
    image = reconstruct(raw, prior=prior, uncertainty=found, show_pbar=False)
    inside = abs(image[0, 0, 0, 0, 1]) > 0.3 * abs(image).max()
    assert found.std is not None
    assert np.median(found.std[0, 0, 0, 0, 1][inside]) > 0.7


def test_a_line_for_a_frame() -> None:
    frame = {"frame": [1, 0, 0, 0, 2], "psnr": 34.56, "psnr_bound": 32.0, "large_share": 0.123}
    assert describe(frame, (2, 1, 1, 1, 3, 8, 8)) == (
        "Repetition 2, slice 3: expected PSNR 34.6 dB, above 32.0 dB in nine of ten slices; standard error above 10 %"
        " of the signal in 12 % of the object."
    )
