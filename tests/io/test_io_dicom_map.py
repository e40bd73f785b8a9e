"""Parametric maps of the standard error: read back by highdicom and pydicom, beside the MR images."""

import logging

import numpy as np
import pytest
from mrd_files import coil_images, encoding, header, image_acqs, kspace, write
from test_io_dicom import SUBJECT, magnitude, stack

from hggdp_plugin import io
from hggdp_plugin.io import files

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")


def read_series(folder):
    """The MR images by identifier, and the maps in the order of their numbers."""
    images = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    maps = [hd.pm.ParametricMap.from_file(file) for file in sorted(folder.with_name(f"{folder.name}_std").iterdir())]
    return {image.SOPInstanceUID: image for image in images}, maps


def sources(one):
    """The MR image that each frame of a map refers to."""
    groups = one.PerFrameFunctionalGroupsSequence
    return [g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for g in groups]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_maps_refer_to_the_images_at_their_places(tmp_path, rng, order):
    raw = stack(tmp_path / "raw.h5", order, SUBJECT.replace("Doe^Jane", "phantom"))
    image = magnitude(raw)
    std = rng.random(image.shape).astype(np.float32)
    io.write_image(f"{tmp_path}/out/", image, raw=raw, std=std, history="a test")
    images, maps = read_series(tmp_path / "out")
    assert len(maps) == 2  # repetitions
    for repetition, one in enumerate(maps):
        assert one.NumberOfFrames == 3
        values = one.get_frames()  # real-world values
        np.testing.assert_array_equal(values, one.pixel_array)
        groups = one.PerFrameFunctionalGroupsSequence
        assert len(set(sources(one))) == 3
        for frame, (uid, group) in enumerate(zip(sources(one), groups, strict=True)):
            source = images[uid]
            assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
            assert source.TemporalPositionIdentifier == repetition + 1
            number = order.index((source.InstanceNumber - 1) % 3)
            np.testing.assert_array_equal(values[frame], std[repetition, 0, 0, 0, number])
            stored = source.pixel_array * float(source.RescaleSlope)
            np.testing.assert_allclose(stored, image[repetition, 0, 0, 0, number], atol=image.max() / 4095)
        shared = one.SharedFunctionalGroupsSequence[0]
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == source.ImageOrientationPatient
        assert shared.PixelMeasuresSequence[0].PixelSpacing == source.PixelSpacing
        assert one.get_volume().spatial_shape == (3, *image.shape[-2:])
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == pytest.approx(4, rel=1e-5)
        assert (one.SeriesNumber, one.InstanceNumber, one.PatientName) == (2, repetition + 1, "phantom")
        assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == (source.StudyInstanceUID, source.FrameOfReferenceUID)
        assert (one.ImageType[0], one.DerivationDescription) == ("DERIVED", "a test")
        assert one.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert len({one.SOPInstanceUID for one in maps} | set(images)) == 8
    assert {one.SeriesInstanceUID for one in maps}.isdisjoint({source.SeriesInstanceUID})
    assert len({one.SeriesInstanceUID for one in maps}) == 1


def test_what_the_values_are(tmp_path, rng):
    image = rng.random((20, 30)).astype(np.float32)
    std = 1e-6 * image**2
    io.write_image(tmp_path / "image.dcm", image, std=std)
    one = hd.pm.ParametricMap.from_file(tmp_path / "image_std.dcm")
    assert one.SOPClassUID == pydicom.uid.ParametricMapStorage
    assert sources(one) == [pydicom.dcmread(tmp_path / "image.dcm").SOPInstanceUID]
    shared = one.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodingSchemeDesignator, unit.CodeValue) == ("UCUM", "[arb'U]")
    items = mapping.QuantityDefinitionSequence
    codes = {item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeMeaning for item in items}
    assert codes == {"246205007": "MR signal intensity", "121401": "Standard Deviation"}
    real = one.get_frames(apply_real_world_transform=True, dtype=np.float64)
    np.testing.assert_array_equal(real[0], std)
    window = shared.FrameVOILUTSequence[0]
    assert window.VOILUTFunction == "LINEAR_EXACT"  # the others need windows of one or more
    assert window.WindowCenter + window.WindowWidth / 2 == pytest.approx(np.percentile(std, 99.8), rel=1e-5)


def test_headers_that_do_not_fit(tmp_path, rng, caplog):
    """What the MR images leave out does not stop the maps, which are stricter."""
    odd = SUBJECT.replace("1970-02-03", "1970-02-31").replace("07:08:09", "27:08:09").replace(">F<", ">?<")
    raw = stack(tmp_path / "raw.h5", xml=odd.replace("1.2.3.4", "none").replace("Doe^Jane", "Doe^Jane^" * 9))
    image = magnitude(raw)
    io.write_image(f"{tmp_path}/out/", image, raw=raw, std=image)
    images, maps = read_series(tmp_path / "out")
    for dataset in (*images.values(), *maps):
        assert (dataset.StudyDate, dataset.PatientSex) == ("20240506", "O")
        assert not dataset.PatientBirthDate
        assert not dataset.StudyTime
    assert "PatientBirthDate of the header does not fit" in caplog.text


def test_an_error_of_zero(tmp_path):
    io.write_image(tmp_path / "image.dcm", np.ones((8, 8)), std=np.zeros((8, 8)), history="long" * 999)
    assert not hd.pm.ParametricMap.from_file(tmp_path / "image_std.dcm").pixel_array.any()


def test_slices_that_make_no_stack(tmp_path, rng):
    """Three planes as a localizer has them, and the last one again at the same place."""
    axes, lines = np.eye(3), []
    for number in range(4):
        turned = np.roll(axes, min(number, 2), axis=0)
        fields = dict(zip(("read_dir", "phase_dir", "slice_dir"), map(tuple, turned), strict=True))
        lines += image_acqs(kspace(coil_images((16, 16), coils=1, seed=number)), idx={"slice": number}, **fields)
    raw = io.read_raw(write(tmp_path / "raw.h5", header(encoding((16, 16, 1))), lines))
    image = magnitude(raw)
    std = rng.random(image.shape).astype(np.float32)
    io.write_image(f"{tmp_path}/out/", image, raw=raw, std=std)
    images, maps = read_series(tmp_path / "out")
    assert [one.NumberOfFrames for one in maps] == [1, 1, 1, 1]
    assert {uid for one in maps for uid in sources(one)} == set(images)
    for one in maps:
        orientation = one.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
        assert orientation == images[sources(one)[0]].ImageOrientationPatient


def test_without_highdicom(tmp_path, monkeypatch, caplog):
    found = files.find_spec
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "highdicom" else found(name))
    image = np.ones((8, 8))
    with pytest.raises(io.InputError, match=r"need the package highdicom; pip install 'hggdp_plugin\[dicom\]'"):
        io.write_image(tmp_path / "image.dcm", image, std=image)
    assert not list(tmp_path.iterdir())
    with caplog.at_level(logging.WARNING):
        io.write_image(tmp_path / "image.dcm", image)
    assert not caplog.records
