"""MRD streams: raw data from a pipe, images into one."""

from importlib.util import find_spec
from typing import BinaryIO

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import ismrmrd
from hggdp_plugin.io.mrd.images import WINDOW_PERCENTILE, image_objects
from hggdp_plugin.io.mrd.reader import read_stream
from hggdp_plugin.io.raw import RawData


def read_pipe(stream: BinaryIO, source: str = "the stream", encoding: int | None = None) -> RawData:
    """Read raw data in MRD's streaming format, to its end.

    Args:
        stream (file): Binary stream of messages: header, acquisitions, end. Configurations, waveforms, images and text
            between them are skipped.
        source (str): Where it comes from, for messages.
        encoding (int or None): Number of the encoding to read, if the header has several; None: see
            :func:`hggdp_plugin.io.read_raw`.

    Returns:
        RawData: The measurement.

    Raises:
        InputError: If the stream breaks off or holds no measurement.
    """
    _check_package(source)
    from ismrmrd.serialization import ProtocolDeserializer

    header: bytes | None = None
    acquisitions: list[ismrmrd.Acquisition] = []
    try:
        for item in ProtocolDeserializer(stream).deserialize():
            if isinstance(item, ismrmrd.xsd.ismrmrdHeader):
                header = item.toXML("utf-8").encode()
            elif isinstance(item, ismrmrd.Acquisition):
                acquisitions.append(item)
    except Exception as error:  # whatever half a message provokes in the package
        problem = f"it broke off after {len(acquisitions)} acquisitions ({type(error).__name__}: {error})"
        raise InputError(source, problem, "send an MRD stream, as ismrmrd_hdf5_to_stream writes it") from None
    if header is None or not acquisitions:
        missing = "no header" if header is None else "no acquisitions"
        raise InputError(source, f"it holds {missing}", "send raw data as an MRD stream")
    return read_stream(header, acquisitions, source, encoding)


def write_pipe(
    stream: BinaryIO,
    image: np.ndarray,
    raw: RawData,
    window: tuple[float, float],
    history: str,
    std: np.ndarray | None = None,
) -> None:
    """Write images in MRD's streaming format: the header of the measurement, the images, and the end.

    Args:
        stream (file): Binary stream.
        image (array): Image (repetition, contrast, phase, set, slice, y, x), float32 or complex64.
        raw (RawData): The measurement that the image was made of.
        window (tuple of float): Lower and upper end of the gray scale.
        history (str): How the image was made.
        std (array or None): Standard error of the image, for a second series.
    """
    from ismrmrd.serialization import ProtocolSerializer

    serializer = ProtocolSerializer(stream)
    if raw.header:
        serializer.serialize(ismrmrd.xsd.CreateFromDocument(raw.header.encode()))
    for item in image_objects(image, raw, window, history):
        serializer.serialize(item)
    if std is not None:
        window = (0.0, float(np.percentile(std, WINDOW_PERCENTILE)))
        for item in image_objects(std, raw, window, history, is_std=True):
            serializer.serialize(item)
    serializer.close()
    stream.flush()


def _check_package(source: str) -> None:
    if find_spec("ismrmrd.serialization") is None:
        raise InputError(source, "MRD streams need the package ismrmrd 1.15 or later", "pip install -U ismrmrd")
