import json

import numpy as np
import pytest
from matplotlib.image import imread

from hggdp_plugin import io, metrics
from hggdp_plugin.apps.evaluate import main
from hggdp_plugin.simulation import ScanProtocol, acquire, head_phantom, make_source, write_raw


@pytest.fixture(scope="module")
def image():
    return head_phantom((48, 40), num_slices=2)


@pytest.fixture(scope="module")
def noisy(image):
    rng = np.random.default_rng(0)
    return (image + 0.03 * (rng.standard_normal(image.shape) + 1j * rng.standard_normal(image.shape))).astype("c8")


@pytest.fixture
def folder(tmp_path, image, noisy):
    source = make_source(image, "image", num_coils=2)
    write_raw(tmp_path / "raw.h5", acquire(source.ksp, source.image, ScanProtocol("full")), source.image, {})
    np.save(tmp_path / "noisy.npy", 5j * noisy)
    np.save(tmp_path / "reference.npy", image)
    io.write_image(tmp_path / "magnitude.h5", noisy)
    return tmp_path


def test_table_figure_and_json(folder, noisy, image, capsys):
    recons = [str(folder / name) for name in ("noisy.npy", "magnitude.h5")]
    outputs = ["-o", str(folder / "table.json"), "--figure", str(folder / "figure.png")]
    assert main([*recons, "--reference", str(folder / "raw.h5"), *outputs]) == 0
    expected = metrics.mean_scores(metrics.score_slices(noisy, image))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["PSNR/dB", "complex", "SSIM", "HFEN", "NRMSE", "complex"]
    assert first.split()[0] == recons[0]
    assert float(first.split()[1]) == pytest.approx(expected.psnr, abs=0.01)
    assert float(first.split()[2]) == pytest.approx(expected.psnr_complex, abs=0.01)
    assert float(first.split()[6]) == pytest.approx(expected.nrmse_complex, abs=0.001)
    assert second.split()[2] == second.split()[6] == "-"

    report = json.loads((folder / "table.json").read_text())
    assert [one["file"] for one in report["images"]] == recons
    assert report["images"][0]["mean"] == pytest.approx(vars(expected), rel=1e-3)
    assert len(report["images"][0]["slices"]) == 2
    assert report["images"][1]["mean"]["psnr_complex"] is None
    assert imread(folder / "figure.png").shape[2] == 4
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", [".npy", ".cfl", ".h5", ".nii.gz"])
def test_a_magnitude_scores_equally_in_every_format(folder, noisy, image, suffix, capsys):
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel")
    path = folder / f"image{suffix}"
    io.write_image(path, np.abs(noisy), complex_=suffix == ".cfl")
    assert main([str(path), "--reference", str(folder / "raw.h5"), "-o", str(folder / "table.json")]) == 0
    mean = json.loads((folder / "table.json").read_text())["images"][0]["mean"]
    expected = metrics.mean_scores(metrics.score_slices(np.abs(noisy), np.abs(image)))
    assert mean.pop("psnr_complex") is mean.pop("nrmse_complex") is None
    assert mean == pytest.approx({name: getattr(expected, name) for name in mean}, rel=1e-5)


def test_the_reference_may_be_an_image_and_equality_is_valid_json(folder):
    reference = str(folder / "reference.npy")
    magnitude = str(folder / "m.npy")
    np.save(magnitude, np.abs(np.load(reference)))
    assert main([magnitude, "--reference", magnitude, "-o", str(folder / "table.json")]) == 0

    def refuse(constant):
        raise ValueError(constant)

    report = json.loads((folder / "table.json").read_text(), parse_constant=refuse)
    assert report["images"][0]["mean"]["ssim"] == pytest.approx(1)


def test_bad_requests_are_one_line_and_no_output(folder, image, capsys):
    np.save(folder / "small.npy", image[:, :40])
    np.save(folder / "one.npy", image[0])
    np.save(folder / "zero.npy", 0 * image)
    (folder / "text.h5").write_text("no HDF5")
    (folder / "old.json").write_text("keep me")
    table = str(folder / "table.json")
    cases = [
        (["small.npy"], "raw.h5", table, "shape"),
        (["one.npy"], "raw.h5", table, "shape"),
        (["noisy.npy"], "zero.npy", table, "zero everywhere"),
        (["noisy.npy", "missing.npy"], "raw.h5", table, "no such file"),
        (["noisy.npy"], "text.h5", table, "text.h5"),
        (["noisy.npy"], "missing.h5", table, "missing.h5"),
        (["raw.h5"], "raw.h5", table, "raw.h5"),
        (["noisy.npy"], "raw.h5", str(folder / "old.json"), "--overwrite"),
        (["noisy.npy"], "raw.h5", str(folder / "table.txt"), ".json"),
    ]
    before = sorted(folder.iterdir())
    for recons, reference, output, told in cases:
        args = [str(folder / name) for name in recons]
        assert main([*args, "--reference", str(folder / reference), "-o", output]) == 2
        error = capsys.readouterr().err
        assert error.startswith("hggdp evaluate: ")
        assert error.count("\n") == 1
        assert told in error
    assert sorted(folder.iterdir()) == before
    assert (folder / "old.json").read_text() == "keep me"


def test_raw_data_without_reference_say_so(folder, capsys):
    import h5py

    with h5py.File(folder / "raw.h5", "a") as file:
        del file["reference"]
    assert main([str(folder / "noisy.npy"), "--reference", str(folder / "raw.h5")]) == 2
    assert "no reference image" in capsys.readouterr().err


def test_existing_outputs_are_replaced_when_asked(folder):
    figure = folder / "figure.png"
    figure.write_text("old")
    args = [str(folder / "noisy.npy"), "--reference", str(folder / "raw.h5"), "--figure", str(figure)]
    assert main(args) == 2
    assert main([*args, "--overwrite"]) == 0
    assert imread(figure).ndim == 3
