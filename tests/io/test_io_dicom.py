"""DICOM images: read back by pydicom, with positions computed by hand."""

import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

pydicom = pytest.importorskip("pydicom")
SHAPE = (24, 16)
SUBJECT = (
    "<subjectInformation><patientName>Doe^Jane</patientName><patientWeight_kg>71.5</patientWeight_kg>"
    "<patientID>42</patientID><patientBirthdate>1970-02-03</patientBirthdate><patientGender>F</patientGender>"
    "</subjectInformation><studyInformation><studyDate>2024-05-06</studyDate><studyTime>07:08:09</studyTime>"
    "<studyInstanceUID>1.2.3.4</studyInstanceUID></studyInformation>"
    "<measurementInformation><patientPosition>HFS</patientPosition><protocolName>T2 tra</protocolName>"
    "</measurementInformation>"
    "<sequenceParameters><TR>4000</TR><TE>93.5</TE><flipAngle_deg>120</flipAngle_deg></sequenceParameters>"
)


def rotation():
    """An oblique set of read, phase and slice directions, as columns."""
    matrix, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def stack(path, order=(0, 1, 2), xml=""):
    """Slices 4 mm apart, twice repeated, voxels of 2 x 1.5 x 3 mm."""
    axes, lines = rotation(), []
    for repetition in range(2):
        for counter, place in enumerate(order):
            fields = {"position": tuple(np.array([10, -20, 30]) + 4 * place * axes[:, 2])}
            fields |= dict(zip(("read_dir", "phase_dir", "slice_dir"), map(tuple, axes.T), strict=True))
            idx = {"slice": counter, "repetition": repetition}
            lines += image_acqs(kspace(coil_images(SHAPE, coils=1, seed=place)), idx=idx, **fields)
    text = header(encoding((16, 24, 1), ef=(32, 36, 3), rf=(32, 36, 3)))
    return io.read_raw(write(path, text.replace("<encoding>", xml + "<encoding>", 1), lines))


def magnitude(raw):
    return np.abs(raw.to_image(sp.ifft(raw.ksp, axes=(-1, -2))[..., 0, :, :]))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_a_folder_of_slices(tmp_path, order):
    raw = stack(tmp_path / "raw.h5", order, SUBJECT)
    image = magnitude(raw)
    io.write_image(f"{tmp_path}/out/", image, raw=raw, history="a test")
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 6
    read = [pydicom.dcmread(file) for file in files]
    axes = rotation()
    for number, dataset in enumerate(read):
        repetition, place = divmod(number, 3)
        center = np.array([10, -20, 30]) + 4 * place * axes[:, 2]
        corner = center - 8 * 2.0 * axes[:, 0] - 12 * 1.5 * axes[:, 1]
        np.testing.assert_allclose(dataset.ImagePositionPatient, corner, atol=1e-4)
        np.testing.assert_allclose(dataset.ImageOrientationPatient, [*axes[:, 0], *axes[:, 1]], atol=1e-6)
        np.testing.assert_allclose(dataset.PixelSpacing, [1.5, 2])
        np.testing.assert_allclose([dataset.SliceThickness, dataset.SpacingBetweenSlices], [3, 4], rtol=1e-5)
        assert (dataset.InstanceNumber, dataset.TemporalPositionIdentifier) == (number + 1, repetition + 1)
        values = dataset.pixel_array * float(dataset.RescaleSlope)
        expected = image[repetition, 0, 0, 0, order.index(place)]
        np.testing.assert_allclose(values, expected, atol=image.max() / 4095)
    first = read[0]
    assert (str(first.PatientName), first.PatientID, first.PatientSex) == ("Doe^Jane", "42", "F")
    assert (first.PatientBirthDate, first.StudyDate, first.StudyTime) == ("19700203", "20240506", "070809")
    assert (first.StudyInstanceUID, first.PatientPosition, float(first.PatientWeight)) == ("1.2.3.4", "HFS", 71.5)
    assert (float(first.EchoTime), float(first.RepetitionTime), float(first.FlipAngle)) == (93.5, 4000, 120)
    assert float(first.ImagingFrequency) == pytest.approx(123)
    assert "learned prior" in first.SeriesDescription
    assert first.SeriesDescription.startswith("T2 tra")
    assert "learned prior" in first.ImageComments
    assert first.DerivationDescription == "a test"
    assert first.ImageType[0] == "DERIVED"
    top = float(first.WindowCenter) + float(first.WindowWidth) / 2
    assert top == pytest.approx(np.percentile(image, 99.8), rel=1e-5)
    assert first.VOILUTFunction == "LINEAR_EXACT"  # the default needs windows of one or more
    assert len({d.SOPInstanceUID for d in read}) == 6
    assert len({d.SeriesInstanceUID for d in read}) == 1


def test_a_volume(tmp_path):
    ksp = kspace(coil_images((4, 6, 8), coils=1))
    lines = [
        acquisition(ksp[:, z, y], idx={"kspace_encode_step_1": y, "kspace_encode_step_2": z}, position=(1, 2, 3))
        for z, y in np.ndindex(4, 6)
    ]
    raw = io.read_raw(write(tmp_path / "raw.h5", header(encoding((8, 6, 4), ef=(16, 12, 20), rf=(16, 12, 20))), lines))
    io.write_image(f"{tmp_path}/out/", magnitude(raw), raw=raw)
    read = [pydicom.dcmread(file) for file in sorted((tmp_path / "out").iterdir())]
    np.testing.assert_allclose([d.ImagePositionPatient for d in read], [[-7, -4, 3 + 5 * (z - 2)] for z in range(4)])
    assert {float(d.SliceThickness) for d in read} == {5}
    assert read[0].MRAcquisitionType == "3D"


def test_one_file(tmp_path):
    image = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    io.write_image(tmp_path / "image.dcm", image)
    dataset = pydicom.dcmread(tmp_path / "image.dcm")
    np.testing.assert_allclose(dataset.pixel_array * float(dataset.RescaleSlope), image, atol=1e-3)
    with pytest.raises(io.InputError, match="3 images, a DICOM file holds one"):
        io.write_image(tmp_path / "images.dcm", np.ones((3, 4, 4)))
    with pytest.raises(io.InputError, match="complex"):
        io.write_image(tmp_path / "complex.dcm", image, complex_=True)
    assert [p.name for p in tmp_path.iterdir()] == ["image.dcm"]


def test_folders_are_replaced_with_care(tmp_path):
    folder = tmp_path / "out"
    image = np.ones((3, 4, 4))
    io.write_image(f"{folder}/", image)
    with pytest.raises(io.InputError, match="exists already"):
        io.write_image(f"{folder}/", image)
    io.write_image(f"{folder}/", image[:2], overwrite=True)
    assert len(list(folder.iterdir())) == 2
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(io.InputError, match="other files"):
        io.write_image(f"{folder}/", image, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(io.InputError, match="folder does not exist"):
        io.write_image(f"{tmp_path}/missing/out/", image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_headers_that_do_not_fit(tmp_path, caplog):
    long = SUBJECT.replace("1.2.3.4", "not a UID").replace("1970-02-03", "sometime").replace("Doe^Jane", "D" * 500)
    raw = stack(tmp_path / "raw.h5", xml=long)
    io.write_image(f"{tmp_path}/out/", magnitude(raw), raw=raw)
    dataset = pydicom.dcmread(next((tmp_path / "out").iterdir()))
    assert dataset.StudyInstanceUID.startswith("1.2.826")
    assert not dataset.PatientBirthDate
    assert "StudyInstanceUID of the header does not fit" in caplog.text


def test_directions_that_make_no_sense(tmp_path, caplog):
    lines = image_acqs(
        kspace(coil_images(SHAPE, coils=1)), read_dir=(0, 0, 0), phase_dir=(0, 1, 0), slice_dir=(0, 0, 1)
    )
    raw = io.read_raw(write(tmp_path / "raw.h5", header(encoding((16, 24, 1))), lines))
    io.write_image(tmp_path / "image.dcm", magnitude(raw), raw=raw)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "image.dcm").ImageOrientationPatient, [1, 0, 0, 0, 1, 0])
    assert "axial" in caplog.text
