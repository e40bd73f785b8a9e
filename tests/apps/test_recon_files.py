"""hggdp recon: several inputs, records, logs, pipes, DICOM."""

import io as streams
import json
import logging
import sys
from contextlib import closing

import numpy as np
import pytest

from hggdp_plugin import io
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.io import files
from hggdp_plugin.io.mrd._ismrmrd import ismrmrd
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import head_phantom

FAST = ["-N", "4", "--float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    np.save(folder / "phantom.npy", head_phantom((48, 44), num_slices=2))
    options = "--mask random -R 2 --calib 16 --coils 4 --snr 50 --noise-scan --oversampling 2"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    return folder


@pytest.fixture
def recon(folder, tmp_path):
    def recon(*arguments):
        return main([*map(str, arguments), "--prior", str(folder / "tiny.safetensors"), *FAST])

    return recon


class Pipe:
    """What sys.stdin and sys.stdout are to a program in a pipe."""

    def __init__(self, content=b""):
        self.buffer = streams.BytesIO(content)

    def write(self, text):
        raise AssertionError(f"text in a binary stream: {text}")

    def flush(self):
        pass


def stream_of(path):
    serialization = pytest.importorskip("ismrmrd.serialization", reason="needs ismrmrd 1.15")
    content = streams.BytesIO()
    out = serialization.ProtocolSerializer(content)
    with closing(ismrmrd.Dataset(str(path), "dataset", mode="r")) as dataset:
        out.serialize(ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header()))
        for i in range(dataset.number_of_acquisitions()):
            out.serialize(dataset.read_acquisition(i))
    out.close()
    return content.getvalue()


def test_the_record_beside_the_image(folder, recon, tmp_path):
    output = tmp_path / "out.nii.gz"
    pytest.importorskip("nibabel")
    assert recon(folder / "raw.h5", "-o", output, "-s", "3") == 0
    record = json.loads((tmp_path / "out.nii.gz.json").read_text())
    assert record["input"]["file"] == str(folder / "raw.h5")
    assert (record["input"]["coils"], record["input"]["prewhitened"]) == (4, True)
    assert record["input"]["sampled_fraction"] == pytest.approx(0.5, abs=0.1)
    assert record["options"]["seed"] == 3
    assert len(record["options"]["prior_sha256"]) == 64
    assert len(record["options"]["sigmas"]) == 4
    assert [entry["frame"] for entry in record["estimates"]] == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    for entry in record["estimates"]:  # half the variance of prewhitened noise
        assert entry["noise_std"] == pytest.approx(np.sqrt(0.5), rel=1e-4)
        assert entry["scale"] > 0
    assert record["output"] == {"file": str(output), "shape": [1, 1, 1, 1, 2, 48, 44]}
    assert record["seconds"]["reading"] > 0
    assert {"numpy", "torch", "Python"} <= set(record["versions"])
    assert any("ESPIRiT" in line for line in record["log"])
    assert record["warnings"] == []


def test_several_inputs(folder, recon, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((3, 24, 20)) + 1j * rng.standard_normal((3, 24, 20)))
    images, log = tmp_path / "images", tmp_path / "run.log"
    inputs = [tmp_path / "a.npy", folder / "raw.h5", tmp_path / "b.npy"]
    assert recon(*inputs, "--output-dir", images, "--log", log, "-q") == 0
    names = ["a_hggdp.npy", "b_hggdp.npy", "raw_hggdp.h5"]
    assert sorted(p.name for p in images.iterdir()) == sorted([*names, *(f"{name}.json" for name in names)])
    assert capsys.readouterr().out == ""
    assert "INFO" in log.read_text()
    assert log.read_text().count("Wrote") == 3
    alone = tmp_path / "alone.npy"
    assert recon(tmp_path / "b.npy", "-o", alone) == 0
    np.testing.assert_array_equal(np.load(alone), np.load(images / "b_hggdp.npy"))
    warnings = [json.loads((images / f"{n}_hggdp.npy.json").read_text())["log"] for n in "ab"]
    assert all(str(tmp_path / f"{n}.npy") in " ".join(lines) for n, lines in zip("ab", warnings, strict=True))
    assert not any("raw.h5" in line for line in warnings[0])
    assert logging.getLogger("hggdp_plugin").handlers == []


def test_one_bad_input_of_several(folder, recon, tmp_path, capsys):
    np.save(tmp_path / "good.npy", np.random.default_rng(0).standard_normal((3, 24, 20)) + 1j)
    np.save(tmp_path / "bad.npy", np.zeros((3, 24, 20), complex))
    assert recon(tmp_path / "bad.npy", tmp_path / "good.npy", "--output-dir", tmp_path / "out") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "bad.npy" in errors[0]
    assert (tmp_path / "out" / "good_hggdp.npy").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["{raw}", "{raw}", "-o", "{out}/a.h5"], "there are 2 inputs"),
        (["{raw}", "{raw}", "--output-dir", "{out}"], "the output of both"),
        (["{raw}", "-o", "{out}/a.h5", "--format", "npy"], "give either"),
        (["{raw}", "-"], "give it alone"),
        (["{raw}", "-o", "{out}/a.dcm"], "2 images, a DICOM file holds one"),
        (["{raw}", "--output-dir", "{out}/missing/folder"], "cannot be made"),
        (["{raw}", "-o", "{out}/a.npy", "--log", "{out}/missing/a.log"], "log cannot be written"),
    ],
)
def test_options_that_do_not_go_together(folder, recon, tmp_path, capsys, options, says):
    pytest.importorskip("pydicom")
    assert recon(*(o.format(raw=folder / "raw.h5", out=tmp_path) for o in options)) == 2
    assert says in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_self_check_says_once_how_the_maps_are_made(folder, recon, tmp_path, capsys):
    assert recon(folder / "raw.h5", "-o", tmp_path / "out.npy", "--self-check") == 0
    log = capsys.readouterr().out
    assert log.count("Maps: ESPIRiT") == 1
    assert "Self-check of 2 slices" in log


def test_dicom(folder, recon, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    assert recon(folder / "raw.h5", "-o", f"{tmp_path}/dicom/") == 0
    files = sorted((tmp_path / "dicom").iterdir())
    assert [pydicom.dcmread(f).InstanceNumber for f in files] == [1, 2]
    assert (tmp_path / "dicom.json").exists()
    assert recon(folder / "raw.h5", "--output-dir", tmp_path / "many", "--format", "dicom") == 0
    assert len(list((tmp_path / "many" / "raw_hggdp").iterdir())) == 2


def test_dicom_maps_of_the_standard_error(folder, recon, tmp_path, monkeypatch, capsys):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    assert recon(folder / "raw.h5", "-o", f"{tmp_path}/dicom/", "--uncertainty") == 0
    images = [pydicom.dcmread(file) for file in sorted((tmp_path / "dicom").iterdir())]
    (file,) = (tmp_path / "dicom_std").iterdir()
    error = pydicom.dcmread(file)
    assert {item.ReferencedSOPInstanceUID for item in error.SourceImageSequence} == {i.SOPInstanceUID for i in images}
    assert error.pixel_array.shape == (2, 48, 44)
    assert error.pixel_array.min() >= 0
    assert error.pixel_array.max() > 0
    assert json.loads((tmp_path / "dicom.json").read_text())["uncertainty"]["file"] == f"{tmp_path}/dicom_std/"
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "highdicom" else name)
    assert recon(folder / "raw.h5", "-o", f"{tmp_path}/other/", "--uncertainty") == 2
    assert "need the package highdicom" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_pipe(folder, recon, tmp_path, monkeypatch, capsys):
    serialization = pytest.importorskip("ismrmrd.serialization", reason="needs ismrmrd 1.15")
    assert recon(folder / "raw.h5", "-o", tmp_path / "out.npy", "--complex", "-q") == 0
    expected = np.load(tmp_path / "out.npy")
    monkeypatch.setattr(sys, "stdin", Pipe(stream_of(folder / "raw.h5")))
    monkeypatch.setattr(sys, "stdout", pipe := Pipe())
    assert recon("-", "-o", "-", "--complex") == 0
    pipe.buffer.seek(0)
    items = list(serialization.ProtocolDeserializer(pipe.buffer).deserialize())
    assert isinstance(items[0], ismrmrd.xsd.ismrmrdHeader)
    images = [item for item in items if isinstance(item, ismrmrd.Image)]
    np.testing.assert_array_equal(np.stack([image.data[0, 0] for image in images]), expected[0, 0, 0, 0])
    assert [image.slice for image in images] == [0, 1]
    assert "4 coils" in capsys.readouterr().err


def test_a_pipe_to_a_file(folder, recon, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Pipe(stream_of(folder / "raw.h5")))
    assert recon("-", "-o", tmp_path / "out.h5") == 0
    assert io.read_images(tmp_path / "out.h5").shape == (1, 1, 1, 1, 2, 48, 44)


def test_the_encoding_of_a_pipe_is_chosen(folder, recon, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Pipe(stream_of(folder / "raw.h5")))
    monkeypatch.setattr(sys, "stdout", Pipe())
    assert recon("-", "--encoding", "1") == 2
    assert "encoding 1 has no image acquisitions; choose one of: 0" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [0, 3, 100, 5000])
def test_a_pipe_that_breaks_off(folder, recon, monkeypatch, capsys, cut):
    monkeypatch.setattr(sys, "stdin", Pipe(stream_of(folder / "raw.h5")[:cut]))
    monkeypatch.setattr(sys, "stdout", Pipe())
    assert recon("-") == 2
    assert "the stream: it " in capsys.readouterr().err
