import os

import h5py
import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.simulation import (
    REFERENCE,
    ScanGeometry,
    ScanProtocol,
    acquire,
    coil_maps,
    head_phantom,
    make_source,
    write_raw,
)
from hggdp_plugin.simulation.rawfile import ismrmrd

SHAPE = (48, 40)


@pytest.fixture(scope="module")
def source():
    return make_source(head_phantom(SHAPE, num_slices=2), "image", num_coils=4)


@pytest.fixture
def write(source, tmp_path):
    def write(geometry=None, **protocol):
        measurement = acquire(source.ksp, source.image, ScanProtocol(**protocol))
        path = tmp_path / "raw.h5"
        write_raw(path, measurement, source.image, {"seed": 3, "snr": None}, geometry)
        return path, measurement

    return write


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def read_stock(path):
    with ismrmrd.File(str(path), "r") as file:
        return file["dataset"].header, list(file["dataset"].acquisitions)


def test_headers_are_complete(write):
    path, got = write(mask="uniform", accel=2, calib=8, oversampling=2, partial_fourier=0.75, snr=30, noise_scan=True)
    header, lines = read_stock(path)
    encoding = header.encoding[0]
    assert (encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y) == (80, 48)
    assert (encoding.reconSpace.matrixSize.x, encoding.reconSpace.matrixSize.y) == (40, 48)
    assert (encoding.encodedSpace.fieldOfView_mm.x, encoding.reconSpace.fieldOfView_mm.x) == (460, 230)
    assert encoding.reconSpace.fieldOfView_mm.y == 276
    limits = encoding.encodingLimits
    assert (limits.kspace_encoding_step_1.maximum, limits.kspace_encoding_step_1.center) == (35, 12)
    assert limits.slice.maximum == 1
    assert header.acquisitionSystemInformation.receiverChannels == 4

    noise, *lines = lines
    assert noise.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    assert noise.sample_time_us == lines[0].sample_time_us == 2.5
    assert [line.scan_counter for line in (noise, *lines)] == list(range(1, len(lines) + 2))
    assert len(lines) == 2 * len(got.ky)
    for number, line in enumerate(lines):
        index, place = divmod(number, len(got.ky))
        assert line.idx.slice == index
        assert line.idx.kspace_encode_step_1 == got.ky[place]
        assert line.center_sample == 40
        assert (line.data == got.data[index, :, place]).all()
        assert line.position[2] == pytest.approx(5 * index - 2.5)
        assert np.allclose(np.cross(line.read_dir, line.phase_dir), line.slice_dir)
        calib = line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
        assert calib == (8 <= line.idx.kspace_encode_step_1 < 16)
        assert line.is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE) == (place == 0)
        assert line.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE) == (place == len(got.ky) - 1)
        assert line.is_flag_set(ismrmrd.ACQ_LAST_IN_MEASUREMENT) == (number == len(lines) - 1)


def test_reference_and_notes_are_beside_the_raw_data(write, source):
    path, _ = write(mask="full")
    with h5py.File(path) as file:
        assert file[REFERENCE].dtype == np.complex64
        assert (file[REFERENCE][()] == source.image).all()
        assert dict(file[REFERENCE].attrs) == {"seed": 3}


def test_a_reference_of_another_shape_is_refused(source, tmp_path):
    measurement = acquire(source.ksp, source.image, ScanProtocol("full"))
    with pytest.raises(ValueError, match="reference must have shape"):
        write_raw(tmp_path / "raw.h5", measurement, source.image[:1], {})
    assert not (tmp_path / "raw.h5").exists()


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_full_measurement_is_read_and_combined_to_the_reference_within_noise(write, source, oversampling):
    path, _ = write(mask="full", oversampling=oversampling, snr=50)
    ksp = io.read_raw(path).ksp[0, 0, 0, 0]
    combined = np.sum(coil_maps(4, SHAPE).conj() * sp.ifft(ksp, axes=(-2, -1)), axis=1)
    magnitude = np.abs(source.image)
    std = magnitude[magnitude > 0.1].mean() / 50
    assert (combined - source.image).real.std() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("mask", ["uniform", "random", "poisson"])
def test_read_kspace_is_the_measured_one_and_zero_elsewhere(write, source, mask):
    path, got = write(mask=mask, accel=3, calib=10, seed=4)
    raw = io.read_raw(path)
    expected = np.zeros_like(source.ksp)
    expected[:, :, got.ky] = got.data
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0], expected, atol=1e-5)
    assert ((raw.ksp[0, 0, 0, 0] == 0) == (expected == 0)).all()
    assert raw.calib_width >= 10


def test_partial_fourier_and_asymmetric_echo_are_read_in_place(write, source):
    path, _ = write(mask="full", partial_fourier=0.75, partial_echo=0.8)
    ksp = io.read_raw(path).ksp[0, 0, 0, 0]
    np.testing.assert_allclose(ksp[:, :, 12:, 8:], source.ksp[:, :, 12:, 8:], atol=1e-5)
    assert (ksp[:, :, :12] == 0).all()
    assert (ksp[..., :8] == 0).all()


def test_a_volume_is_read_with_its_slices_along_the_readout(source, tmp_path):
    path, reference = tmp_path / "volume.h5", source.image.transpose(1, 2, 0)
    protocol = ScanProtocol("poisson", accel=3, calib=10, oversampling=2, volume=True)
    got = acquire(source.ksp, source.image, protocol)
    write_raw(path, got, reference, {}, ScanGeometry(fov=200, thickness=4))
    raw = io.read_raw(path)
    assert raw.is_3d
    mask = np.zeros(SHAPE, bool)
    mask[got.kz, got.ky] = True
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0], source.ksp * mask, atol=1e-5)
    np.testing.assert_array_equal(raw.to_image(source.image[None, None, None, None])[0, 0, 0, 0], reference)
    assert raw.fov == (240, 200, 8)
    assert np.allclose(np.cross(raw.geometry.read_dir, raw.geometry.phase_dir), raw.geometry.slice_dir)


def test_the_noise_scan_whitens_the_data(write):
    path, _ = write(mask="full", snr=10, noise_scan=True, oversampling=2)
    raw = io.read_raw(path)
    assert raw.whitened
    images = sp.ifft(raw.ksp[0, 0, 0, 0], axes=(-2, -1))
    assert np.mean(np.abs(images[..., :6, :4]) ** 2) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("unit", ["pixel", "fov"])
def test_trajectories_in_either_unit_give_the_same_coordinates(write, source, unit):
    path, got = write(ScanGeometry(traj_unit=unit), mask="radial", spokes=11)
    header, lines = read_stock(path)
    assert header.encoding[0].trajectory == ismrmrd.xsd.trajectoryType.RADIAL
    largest = np.abs(np.stack([line.traj for line in lines])).max(axis=(0, 1))
    assert (largest <= ([0.5, 0.5] if unit == "pixel" else [20, 24])).all()
    raw = io.read_raw(path)
    np.testing.assert_allclose(raw.coord, got.trajectory[..., ::-1] * np.array(SHAPE), atol=1e-4)
    expected = sp.nufft(sp.ifft(source.ksp, axes=(-2, -1)), raw.coord)
    assert relative(raw.ksp[0, 0, 0, 0], expected) < 1e-5


def test_impossible_geometry_is_refused():
    for options in ({"fov": 0}, {"thickness": -1}, {"fov": np.nan}, {"traj_unit": "mm"}):
        with pytest.raises(ValueError, match=r"positive|pixel or fov"):
            ScanGeometry(**options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_error(source):
    with pytest.raises(OSError, match="No space left"):
        write_raw("/dev/full", acquire(source.ksp, source.image, ScanProtocol("full")), source.image, {})
