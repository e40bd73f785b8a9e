"""Damaged files are read to finite numbers or refused by InputError; nothing else happens.

The environment variable HGGDP_FUZZ_CASES sets the number of cases.
"""

import os

import h5py
import numpy as np
import pytest
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

CASES = int(os.environ.get("HGGDP_FUZZ_CASES", "300"))
SHAPE = (12, 8)


def cartesian(path):
    ksp = kspace(coil_images((12, 16), coils=2))
    rng = np.random.default_rng(0)
    lines = [acquisition(rng.standard_normal((2, 16, 2)) @ [1, 1j], flags=[19])]
    lines += image_acqs(ksp, rows=range(4), flags=[20])
    lines += image_acqs(ksp, rows=range(0, 12, 2)) + image_acqs(ksp, rows=range(0, 12, 2), idx={"slice": 1})
    return write(path, header(encoding((16, 12, 1), (8, 12, 1), ky_center=6), bandwidth=0.8), lines)


def volume(path):
    ksp = kspace(coil_images((4, 6, 8), coils=2))
    lines = [
        acquisition(ksp[:, z, y], idx={"kspace_encode_step_1": y, "kspace_encode_step_2": z})
        for z, y in np.ndindex(ksp.shape[1:3])
    ]
    return write(path, header(encoding((8, 6, 4), ky_center=3, kz_center=2)), lines)


def radial(path):
    rng = np.random.default_rng(0)
    k = np.stack([np.linspace(-4, 4, 16)] * 2, axis=1).astype(np.float32)
    lines = [acquisition(rng.standard_normal((2, 16, 2)) @ [1, 1j], traj=k * [1, 0.1 * i]) for i in range(6)]
    return write(path, header(encoding((8, 8, 1), trajectory="radial")), lines)


def references(path):
    """An image in encoding 1, a prescan in encoding 0, a reference scan with its own field of view in encoding 2."""
    ksp = kspace(coil_images((12, 16), coils=2))
    lines = image_acqs(ksp[:, 4:8, 4:12], flags=[20], encoding_space_ref=2)
    lines += image_acqs(ksp[:, 3:9, 5:11]) + image_acqs(ksp, rows=range(0, 12, 2), encoding_space_ref=1)
    encodings = [encoding((6, 6, 1), ef=(16, 12, 1)), encoding((16, 12, 1)), encoding((8, 4, 1), ef=(20, 15, 1))]
    return write(path, header(*encodings), lines)


def stack(path):
    """A stack of stars."""
    rng = np.random.default_rng(0)
    k = np.stack([np.linspace(-4, 4, 16)] * 2, axis=1).astype(np.float32)
    lines = []
    for spoke, z in np.ndindex(5, 4):
        data, counters = rng.standard_normal((2, 16, 2)) @ [1, 1j], {"kspace_encode_step_1": spoke}
        counters["kspace_encode_step_2"] = z
        lines.append(acquisition(data, traj=k * np.float32([1, 0.1 * spoke]), idx=counters))
    return write(path, header(encoding((8, 8, 4), kz_center=2, trajectory="radial")), lines)


def kooshball(path):
    """A three-dimensional trajectory."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((12, 1, 3))
    k = (direction / np.linalg.norm(direction, axis=-1, keepdims=True) * np.linspace(-4, 4, 16)[:, None]).astype("f4")
    lines = [acquisition(rng.standard_normal((2, 16, 2)) @ [1, 1j], traj=one) for one in k]
    return write(path, header(encoding((8, 8, 8), trajectory="other")), lines)


def damage_bytes(path, rng):
    """Overwrites, removes or repeats a few bytes anywhere."""
    data = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 8)):
        place = int(rng.integers(len(data)))
        kind = rng.integers(10)
        if kind == 0:
            del data[place : place + int(rng.integers(1, 64))]
        elif kind == 1:
            data[place : place + 1] = rng.bytes(int(rng.integers(1, 64)))
        elif kind == 2:
            data[place : place + 8] = b"\xff" * 8
        else:
            data[place] = rng.integers(256)
    path.write_bytes(data)


def damage_fields(path, rng):
    """Overwrites header fields, samples and numbers of the XML header by extreme values."""
    extremes = {
        "u": [0, 1, 2, 7, 255, 65535, 2**31],
        "i": [0, -1, 2**31 - 1],
        "f": [0, -1, np.nan, np.inf, 1e38, 1e-38],
    }
    with h5py.File(path, "a") as file:
        table = file["dataset/data"]
        rows = table[:]
        for _ in range(rng.integers(1, 4)):
            line_number = rng.integers(len(rows)) if rng.random() < 0.7 else slice(None)
            name = rng.choice(["idx", "traj", "data", *rows.dtype["head"].names])
            if name in ("traj", "data"):
                values = rows[name][rng.integers(len(rows))]
                if len(values):
                    values[rng.integers(len(values))] = rng.choice(extremes["f"])
                continue
            target = rows["head"][name]
            if name == "idx":
                target = target[rng.choice(target.dtype.names)]
            kind = target.dtype.kind
            value = np.array(rng.choice(extremes[kind])).astype(target.dtype)
            target[line_number] = value if rng.random() < 0.8 else rng.integers(0, 20)
        table[:] = rows
        if rng.random() < 0.3:
            words = bytes(file["dataset/xml"][0]).split(b">")
            numbers = [i for i, word in enumerate(words) if word[:1].isdigit()]
            place = rng.choice(numbers)
            value = rng.choice(["0", "-1", "3", "17", "65535", "1e6", "x", "1e308", "nan", ""])
            words[place] = value.encode() + words[place].lstrip(b"0123456789.")
            file["dataset/xml"][0] = b">".join(words)


def finite(raw):
    arrays = [raw.ksp, raw.coord, raw.calib, raw.noise_cov]
    return all(np.isfinite(a).all() for a in arrays if a is not None)


@pytest.mark.parametrize("make", [cartesian, volume, radial, references, stack, kooshball])
@pytest.mark.parametrize("damage", [damage_bytes, damage_fields])
def test_damaged_file(tmp_path, make, damage):
    rng = np.random.default_rng(1)
    whole = make(tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "raw.h5"
    read = 0
    for case in range(CASES // 12):
        path.write_bytes(whole)
        damage(path, rng)
        try:
            raw = io.read_raw(path)
        except io.InputError:
            continue
        assert finite(raw), case
        assert raw.ksp.any(), case
        assert raw.summary(), case
        assert raw.geometry.position.shape == (raw.image_shape[0], 3), case
        recon = np.zeros((*raw.ksp.shape[:5], *raw.grid), np.complex64)
        assert raw.to_image(recon).shape == (*raw.ksp.shape[:4], *raw.image_shape), case
        read += 1
    assert read > 0
