"""Files with several encodings, and reference scans on a matrix of their own."""

import logging

import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

N, COILS = 48, 4


@pytest.fixture
def images():
    """Coil images with sharp edges, well inside the field of view: smooth sensitivities times a phantom."""
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    phantom = ((x / 0.45) ** 2 + (y / 0.6) ** 2 < 1) + 0.5 * ((x - 0.1) ** 2 + (y + 0.2) ** 2 < 0.03)
    angle = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    maps = np.exp(-((x - np.cos(angle)) ** 2) - (y - np.sin(angle)) ** 2 + 1j * angle)
    return (phantom * maps).astype(np.complex64)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_image_is_read_not_the_prescan(tmp_path, images, caplog):
    low = sp.resize(kspace(images), (COILS, 8, 8))
    xml = header(encoding((8, 8, 1), ef=(N, N, 1)), encoding((N, N, 1)))
    # Many averages of the prescan: more acquisitions than the image has.
    lines = [line for _ in range(10) for line in image_acqs(low)] + image_acqs(kspace(images), encoding_space_ref=1)
    path = write(tmp_path / "a.h5", xml, lines)
    raw = io.read_raw(path)
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0], kspace(images), atol=1e-5)
    (warning,) = warnings_of(caplog)
    assert "Encoding 1 (48 x 48, 48 image acquisitions) is reconstructed, not 0 (8 x 8, 80" in warning
    assert "--encoding" in warning
    assert io.read_raw(path, encoding=0).image_shape == (1, 8, 8)
    with pytest.raises(io.InputError, match="encoding 2 has no image acquisitions; choose one of: 0, 1"):
        io.read_raw(path, encoding=2)


def reference_scan(images, matrix, fov, offset=(0.0, 0.0)):
    """K-space of the same coils on another matrix and field of view, by the definition of the Fourier transform."""
    axes = [np.arange(n) - n // 2 for n in images.shape[-2:]]
    kernels = [
        np.exp(-2j * np.pi * np.outer((np.arange(m) - m // 2) / f, x))
        for m, f, x in zip(matrix, fov, axes, strict=True)
    ]
    return (np.einsum("ay,cyx,bx->cab", kernels[0], images, kernels[1]) / N).astype(np.complex64)


@pytest.mark.parametrize(
    ("matrix", "fov"),
    [((20, 20), (N, N)), ((24, 30), (60, 60)), ((20, 24), (40, N)), ((20, 40), (N, 2 * N))],
    ids=["same field of view", "larger", "smaller", "readout oversampled"],
)
@pytest.mark.parametrize("flag", [[20], []], ids=["flagged", "not flagged"])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_reference_scan_on_its_own_matrix_calibrates(tmp_path, images, matrix, fov, flag, oversampling, caplog):
    ksp, wide = kspace(images), kspace(sp.resize(images, (COILS, N, oversampling * N)))
    reference = reference_scan(images, matrix, fov)
    xml = header(
        encoding((oversampling * N, N, 1), (N, N, 1), ky_center=N // 2),
        encoding((matrix[1], matrix[0], 1), ef=(fov[1], fov[0], 1), rf=(N, fov[0], 1), ky_center=matrix[0] // 2),
    )
    lines = image_acqs(reference, encoding_space_ref=1, flags=flag) + image_acqs(wide, rows=range(0, N, 3))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    np.testing.assert_allclose(raw.ksp[0, 0, 0, 0, 0, :, ::3], ksp[:, ::3], atol=1e-5)
    assert raw.mask[0, 0, 0, 0, 0, :, 0].sum() == N // 3
    assert min(raw.calib_shape) >= 15
    assert raw.calib_mask.any(axis=(0, 2)).sum() - raw.calib_shape[0] in (0, 1)  # odd or even
    found, expected = (k[:, raw.calib_mask[0]].ravel() for k in (raw.calib[0], ksp))
    scale = np.vdot(found, expected) / np.vdot(found, found)
    error = np.linalg.norm(scale * found - expected) / np.linalg.norm(expected)
    assert error < 0.02  # the edges of the reference scan's own field of view
    assert any("reference scan" in message for message in caplog.messages)


@pytest.mark.parametrize(("first", "center"), [(0, 0), (0, 4), (14, 24), (14, None)])
def test_the_center_of_a_reference_scan_is_where_it_peaks(tmp_path, images, first, center, caplog):
    """Its steps may count from 0 or on the matrix of the image, and its header may have another center."""
    reference = reference_scan(images, (20, 20), (N, N))
    xml = header(
        encoding((N, N, 1), ky_center=N // 2), encoding((20, 20, 1), ef=(N, N, 1), rf=(N, N, 1), ky_center=center)
    )
    lines = [
        acquisition(line, idx={"kspace_encode_step_1": first + i}, flags=[20], encoding_space_ref=1)
        for i, line in enumerate(reference.swapaxes(0, 1))
    ]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines + image_acqs(kspace(images), rows=range(0, N, 3))))
    assert raw.calib_shape == (20, 20)
    np.testing.assert_allclose(sp.resize(raw.calib[0], reference.shape), reference, atol=1e-5)
    warned = [message for message in warnings_of(caplog) if f"peaks at kspace_encode_step_1 {first + 10}" in message]
    assert len(warned) == (first + 10 != center)


def test_a_reference_scan_of_a_volume(tmp_path):
    images = coil_images((8, 12, 16), coils=2)
    ksp = kspace(images)

    def volume(k, keep, **fields):
        return [
            acquisition(k[:, z, y], idx={"kspace_encode_step_1": y, "kspace_encode_step_2": z}, **fields)
            for z, y in np.argwhere(keep)
        ]

    xml = header(
        encoding((16, 12, 8), ky_center=6, kz_center=4), encoding((8, 8, 6), ef=(16, 12, 8), ky_center=4, kz_center=3)
    )
    keep = np.zeros((8, 12), bool)
    keep[::2, ::2] = True
    reference = sp.resize(ksp, (2, 6, 8, 8))
    lines = volume(reference, np.ones((6, 8), bool), encoding_space_ref=1, flags=[20]) + volume(ksp, keep)
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.calib_shape == (6, 8)
    expected = sp.ifft(sp.resize(sp.resize(ksp, (2, 6, 8, 8)), ksp.shape), axes=(-1,)).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(raw.calib, expected, atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"trajectory": "spiral"}, {"matrix": (N, 4, 1)}, {"matrix": (20, 9999, 1)}, {"channels": 2}]
)
def test_a_reference_scan_that_does_not_fit_is_left_out(tmp_path, images, change, caplog):
    matrix = change.get("matrix", (20, 20, 1))
    other = encoding(matrix, ef=(N, N, 1), trajectory=change.get("trajectory", "cartesian"), ky_center=10)
    reference = reference_scan(images, (20, 20), (N, N))[: change.get("channels", COILS)]
    lines = image_acqs(reference, encoding_space_ref=1, flags=[20]) + image_acqs(kspace(images), rows=range(0, N, 3))
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1)), other), lines))
    assert min(raw.calib_shape) <= 4
    assert "trajectory" in change or warnings_of(caplog)


def test_multiband_is_refused_by_name(tmp_path, images):
    xml = header(encoding((N, N, 1)))
    parallel = "<parallelImaging><multiband><multiband_factor>{}</multiband_factor></multiband></parallelImaging>"
    for factor in (1, 3):
        text = xml.replace("</encoding>", parallel.format(factor) + "</encoding>")
        path = write(tmp_path / f"{factor}.h5", text, image_acqs(kspace(images)))
        if factor == 1:
            assert io.read_raw(path).ksp.any()
        else:
            with pytest.raises(io.InputError, match="3 slices were excited simultaneously"):
                io.read_raw(path)
