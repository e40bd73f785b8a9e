"""Inline reconstruction at the scanner: a module for python-ismrmrd-server, which Siemens FIRE can run.

The server calls :func:`process` when a client asks for the configuration ``hggdp_plugin.apps.fire``.
"""

import logging
from collections.abc import Iterable
from typing import Any

from hggdp_plugin import io
from hggdp_plugin.apps._cli import find_device
from hggdp_plugin.io.mrd import read_stream
from hggdp_plugin.io.mrd.images import mrd_images

#: Parameters that a client may set in the JSON configuration, with their types. All others are left to the server.
PARAMETERS = {"prior": str, "levels": int, "seed": int, "coils": int, "gpu": int}

_STREAM = "the stream"
_logger = logging.getLogger(__name__)


def process(connection: Any, config: Any, metadata: Any) -> None:
    """Reconstruct a stream of acquisitions and send magnitude images back.

    Never raises, so that the server keeps running. Errors are sent to the client as one line, and logged.

    Args:
        connection (Connection): The server's connection. Iterating over it gives acquisitions, and None at the end.
        config (str or dict): Configuration; ``{"parameters": {...}}`` may contain :data:`PARAMETERS`.
        metadata (ismrmrdHeader, str or bytes): The MRD header, as text if the server could not parse it.
    """
    try:
        # Read to the end first: closing while the client is still sending would lose the answer.
        acquisitions = _receive(connection)
        options = _options(config)
        raw = read_stream(_xml(metadata), acquisitions, _STREAM)
        _logger.info(raw.summary())
        connection.send_image(_reconstruct(raw, **options))
    except Exception as error:
        _report(connection, error)
    finally:
        try:
            connection.send_close()
        except Exception as error:
            _logger.warning("The client closed the connection: %s", error)


def _receive(connection: Iterable[Any]) -> list[Any]:
    """Collect the acquisitions. Waveforms and images in the stream are not needed."""
    acquisitions = []
    try:
        for item in connection:
            if item is None:
                break
            if hasattr(item, "traj"):
                acquisitions.append(item)
    except Exception as error:  # whatever a truncated message raises in the server
        problem = f"it ended early, after {len(acquisitions)} acquisitions ({type(error).__name__}: {error})"
        raise io.InputError(_STREAM, problem, "send the measurement again") from error
    if not acquisitions:
        raise io.InputError(_STREAM, "it contains no acquisitions", "send raw data, not images")
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


def _reconstruct(
    raw: io.RawData,
    prior: str | None = None,
    levels: int | None = None,
    seed: int = 0,
    coils: int | None = None,
    gpu: int | None = None,
) -> list[Any]:
    """Reconstruct the images to send, as MRD objects."""
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.schedule import NoiseSchedule
    from hggdp_plugin.volume.calibration import to_virtual_coils
    from hggdp_plugin.volume.reconstruct import reconstruct

    schedule = NoiseSchedule.fast() if levels is None else NoiseSchedule.fast(levels=levels)
    if coils is not None:
        raw, _ = to_virtual_coils(raw, coils)
    image = reconstruct(
        raw,
        prior=load_prior(prior or DEFAULT_PRIOR),
        schedule=schedule,
        seed=seed,
        device=find_device(gpu),
        show_pbar=False,
    )
    return mrd_images(image, raw, f"hggdp_plugin fire, {schedule.evaluations} evaluations, seed {seed}")


def _report(connection: Any, error: Exception) -> None:
    """Send an error to the client in one line, where the server supports it, and log it."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}, see the server's log"
    line = " ".join(f"hggdp_plugin: {text}".split())
    _logger.error(line, exc_info=None if isinstance(error, io.InputError) else error)
    try:
        if hasattr(connection, "send_logging"):
            connection.send_logging("ERROR   ", line)
    except Exception as gone:
        _logger.warning("The error could not be sent to the client: %s", gone)
