"""Makes small raw files with the ismrmrd package, independently of the reader under test."""

import ismrmrd
import numpy as np
import sigpy as sp

XML = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <acquisitionSystemInformation>{system}</acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
 {encodings}
</ismrmrdHeader>"""
ENCODING = """<encoding>
  <encodedSpace><matrixSize><x>{em[0]}</x><y>{em[1]}</y><z>{em[2]}</z></matrixSize>
   <fieldOfView_mm><x>{ef[0]}</x><y>{ef[1]}</y><z>{ef[2]}</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rm[0]}</x><y>{rm[1]}</y><z>{rm[2]}</z></matrixSize>
   <fieldOfView_mm><x>{rf[0]}</x><y>{rf[1]}</y><z>{rf[2]}</z></fieldOfView_mm></reconSpace>
  <encodingLimits>{limits}</encodingLimits>
  <trajectory>{trajectory}</trajectory>
 </encoding>"""
STEP = "kspace_encoding_step_"
LIMIT = "<{0}><minimum>0</minimum><maximum>{1}</maximum><center>{2}</center></{0}>"


def encoding(em, rm=None, *, ef=None, rf=None, ky_center=None, kz_center=None, trajectory="cartesian"):
    """XML of one encoding; matrices and fields of view are (x, y, z), by default 1 mm voxels."""
    rm = rm or em
    limits = "" if ky_center is None else LIMIT.format(STEP + "1", em[1] - 1, ky_center)
    limits += "" if kz_center is None else LIMIT.format(STEP + "2", em[2] - 1, kz_center)
    return ENCODING.format(em=em, rm=rm, ef=ef or em, rf=rf or rm, limits=limits, trajectory=trajectory)


def header(*encodings, bandwidth=None):
    """XML of the whole header."""
    field = "<relativeReceiverNoiseBandwidth>{}</relativeReceiverNoiseBandwidth>"
    return XML.format(encodings="\n".join(encodings), system="" if bandwidth is None else field.format(bandwidth))


def acquisition(data, *, flags=(), traj=None, idx=None, **fields):
    """One acquisition; data (channels, samples), traj (samples, dims), flags as bit numbers, idx as a dict."""
    acq = ismrmrd.Acquisition.from_array(np.asarray(data, np.complex64), *([] if traj is None else [traj]))
    fields = {"center_sample": acq.number_of_samples // 2, "version": 1, "sample_time_us": 5.0} | fields
    for name, value in fields.items():
        setattr(acq, name, value)
    if "read_dir" not in fields:
        acq.read_dir, acq.phase_dir, acq.slice_dir = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    for name, value in (idx or {}).items():
        setattr(acq.idx, name, value)
    for bit in flags:
        acq.setFlag(bit)
    return acq


def write(path, xml, lines, group="dataset"):
    """Writes acquisitions with the ismrmrd package and returns the path."""
    with ismrmrd.Dataset(str(path), group, mode="a") as file:
        file.write_xml_header(xml.encode() if isinstance(xml, str) else xml)
        for acq in lines:
            file.append_acquisition(acq)
    return path


def coil_images(shape=(24, 16), coils=3, seed=0):
    """Smooth complex coil images (coils, *shape), well inside the field of view."""
    rng = np.random.default_rng(seed)
    ksp = np.zeros((coils, *shape), np.complex64)
    middle = tuple(slice(n // 2 - n // 4, n // 2 + n // 4) for n in shape)
    ksp[(slice(None), *middle)] = rng.standard_normal((coils, *(n // 4 * 2 for n in shape), 2)) @ [1, 1j]
    return sp.ifft(ksp, axes=tuple(range(1, len(shape) + 1)))


def kspace(images):
    """K-space (coils, ...) of coil images: centered and orthonormal."""
    return sp.fft(images, axes=tuple(range(1, images.ndim))).astype(np.complex64)


def image_acqs(ksp, rows=None, *, idx=None, **fields):
    """Image lines of k-space (coils, ky, kx); encoding step = row."""
    rows = range(ksp.shape[1]) if rows is None else rows
    return [acquisition(ksp[:, row], idx={"kspace_encode_step_1": row} | (idx or {}), **fields) for row in rows]
