"""Reconstruction inline at the scanner: a module for python-ismrmrd-server, as Siemens FIRE runs it.

The server calls :func:`process` when a client asks for the configuration ``hggdp_plugin.apps.fire``.
"""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.io.mrd.hdf5 import Lines, acquisition_header_dtype
from hggdp_plugin.io.mrd.header import parse_header
from hggdp_plugin.io.mrd.images import mrd_images
from hggdp_plugin.io.mrd.reader import sort_lines

#: Parameters that a client may set in the JSON configuration, and what they are; others are the server's or scanner's.
PARAMETERS = {"prior": str, "levels": int, "seed": int, "coils": int, "gpu": int}

_STREAM = "the stream"
_logger = logging.getLogger(__name__)


def process(connection: Any, config: Any, metadata: Any) -> None:
    """Reconstructs a stream of acquisitions and answers with magnitude images.

    Never raises: the server is to live on. What went wrong reaches the client as one line, and the server's log.

    Args:
        connection (Connection): The server's; iterating gives acquisitions, and None at the end.
        config (str or dict): Configuration; ``{"parameters": {...}}`` may hold :data:`PARAMETERS`.
        metadata (ismrmrdHeader, str or bytes): The MRD header, as text if the server could not parse it.
    """
    try:
        # Read to its end first: to close on a client that is still sending would lose the answer.
        acquisitions = _receive(connection)
        options = _options(config)
        header = parse_header(_xml(metadata), _STREAM)
        raw = sort_lines(header, _lines(acquisitions))
        _logger.info(raw.summary())
        connection.send_image(_reconstruct(raw, **options))
    except Exception as error:
        _report(connection, error)
    finally:
        try:
            connection.send_close()
        except Exception as error:
            _logger.warning("The client has gone: %s", error)


def _receive(connection: Iterable[Any]) -> list[Any]:
    """Collects the acquisitions; waveforms and images that a scanner sends with them are not needed."""
    acquisitions = []
    try:
        for item in connection:
            if item is None:
                break
            if hasattr(item, "traj"):
                acquisitions.append(item)
    except Exception as error:  # whatever half a message provokes in the server
        problem = f"it broke off after {len(acquisitions)} acquisitions ({type(error).__name__}: {error})"
        raise io.InputError(_STREAM, problem, "send the measurement again") from error
    if not acquisitions:
        raise io.InputError(_STREAM, "it holds no acquisitions", "send raw data, not images")
    return acquisitions


def _options(config: Any) -> dict[str, Any]:
    parameters = config.get("parameters") if isinstance(config, dict) else None
    options = {}
    for name, kind in PARAMETERS.items():
        if isinstance(parameters, dict) and parameters.get(name) not in (None, ""):
            try:
                options[name] = kind(parameters[name])
            except (TypeError, ValueError):
                problem = f"parameter {name} is {parameters[name]!r}"
                raise io.InputError("the configuration", problem, "give a whole number") from None
    return options


def _xml(metadata: Any) -> bytes:
    if isinstance(metadata, bytes):
        return metadata.rstrip(b"\0")
    text = metadata if isinstance(metadata, str) else metadata.toXML()
    return text.rstrip("\0").encode()


def _lines(acquisitions: list[Any]) -> Lines:
    heads = np.frombuffer(b"".join(bytes(a.getHead()) for a in acquisitions), acquisition_header_dtype)

    def fetch(field: str, start: int, stop: int) -> np.ndarray:
        payload = np.empty(stop - start, object)
        for i, acquisition in enumerate(acquisitions[start:stop]):
            payload[i] = np.ascontiguousarray(getattr(acquisition, field)).view(np.float32).reshape(-1)
        return payload

    return Lines(heads, fetch, _STREAM)


def _reconstruct(
    raw: io.RawData,
    prior: str | None = None,
    levels: int | None = None,
    seed: int = 0,
    coils: int | None = None,
    gpu: int | None = None,
) -> list[Any]:
    """Makes the images to send, as MRD objects."""
    from hggdp_plugin.apps.recon import find_device
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.schedule import NoiseSchedule
    from hggdp_plugin.volume.reconstruct import compress, reconstruct

    device: sp.Device = find_device(gpu)
    schedule = NoiseSchedule.fast() if levels is None else NoiseSchedule.fast(levels=levels)
    if coils is not None:
        raw, __ = compress(raw, coils, _logger.info)
    options = {"prior": load_prior(*([prior] if prior else [])), "schedule": schedule, "device": device}
    image = reconstruct(raw, seed=seed, show_pbar=False, log=_logger.info, **options)
    return mrd_images(image, raw, f"hggdp_plugin fire, {schedule.evaluations} evaluations, seed {seed}")


def _report(connection: Any, error: Exception) -> None:
    """Tells the client in one line, if the server can, and the log."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}, see the server's log"
    line = " ".join(f"hggdp_plugin: {text}".split())
    _logger.error(line, exc_info=None if isinstance(error, io.InputError) else error)
    try:
        if hasattr(connection, "send_logging"):
            connection.send_logging("ERROR   ", line)
    except Exception as gone:
        _logger.warning("The client could not be told: %s", gone)
