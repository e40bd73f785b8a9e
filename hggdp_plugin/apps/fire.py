"""Inline reconstruction at the scanner: a module for python-ismrmrd-server, which Siemens FIRE can run.

The server calls :func:`process` when a client asks for the configuration ``hggdp_plugin.apps.fire``.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hggdp_plugin import io
from hggdp_plugin.apps._cli import find_device
from hggdp_plugin.io.mrd import read_stream
from hggdp_plugin.io.mrd.images import mrd_images

if TYPE_CHECKING:
    import ismrmrd

_STREAM = "the stream"
_logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What the server gives to its modules. Iterating over it gives acquisitions and other items, None at the end."""

    def __iter__(self) -> Iterator[object]: ...

    def send_image(self, images: "list[ismrmrd.Image]") -> None:
        """Send images to the client."""

    def send_close(self) -> None:
        """Tell the client that nothing follows."""


class ParsedHeader(Protocol):
    """An MRD header that the server has parsed."""

    def toXML(self) -> str:
        """Return the header as text."""


@dataclass(frozen=True)
class Parameters:
    """Parameters that a client may set in the JSON configuration. All others are left to the server.

    Attributes:
        prior (str or None): Name or file of the prior.
        levels (int or None): Number of noise levels.
        seed (int): Seed of the noise.
        coils (int or None): Number of virtual coils.
        gpu (int or None): Number of the GPU.
    """

    prior: str | None = None
    levels: int | None = None
    seed: int = 0
    coils: int | None = None
    gpu: int | None = None

    @classmethod
    def parse(cls, config: object) -> "Parameters":
        """Take the parameters out of a configuration.

        Args:
            config (str or dict): The configuration; ``{"parameters": {...}}`` may contain some.

        Returns:
            Parameters: Those that are there.

        Raises:
            InputError: A parameter is not a whole number.
        """
        given = config.get("parameters") if isinstance(config, Mapping) else None
        given = given if isinstance(given, Mapping) else {}

        def number(name: str) -> int | None:
            if (value := given.get(name)) in (None, ""):
                return None
            try:
                return int(value)
            except (TypeError, ValueError):
                problem = f"parameter {name} is {value!r}"
                raise io.InputError("the configuration", problem, "give a whole number") from None

        prior = given.get("prior") or None
        return cls(prior and str(prior), number("levels"), number("seed") or 0, number("coils"), number("gpu"))


def process(connection: Connection, config: object, metadata: "ParsedHeader | str | bytes") -> None:
    """Reconstruct a stream of acquisitions and send magnitude images back.

    Never raises, so that the server keeps running. Errors are sent to the client as one line, and logged.

    Args:
        connection (Connection): The server's connection.
        config (str or dict): Configuration, see :meth:`Parameters.parse`.
        metadata (ismrmrdHeader, str or bytes): The MRD header, as text if the server could not parse it.
    """
    try:
        # Read to the end first: closing while the client is still sending would lose the answer.
        acquisitions = _receive(connection)
        parameters = Parameters.parse(config)
        raw = read_stream(_xml(metadata), acquisitions, _STREAM)
        _logger.info(raw.summary())
        connection.send_image(_reconstruct(raw, parameters))
    except Exception as error:
        _report(connection, error)
    finally:
        try:
            connection.send_close()
        except Exception as error:
            _logger.warning("The client closed the connection: %s", error)


def _receive(connection: Iterable[object]) -> "list[ismrmrd.Acquisition]":
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


def _xml(metadata: "ParsedHeader | str | bytes") -> bytes:
    if isinstance(metadata, bytes):
        return metadata.rstrip(b"\0")
    text = metadata if isinstance(metadata, str) else metadata.toXML()
    return text.rstrip("\0").encode()


def _reconstruct(raw: io.RawData, parameters: Parameters) -> "list[ismrmrd.Image]":
    """Reconstruct the images to send."""
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.schedule import NoiseSchedule
    from hggdp_plugin.volume.calibration import to_virtual_coils
    from hggdp_plugin.volume.reconstruct import reconstruct

    levels, seed = parameters.levels, parameters.seed
    schedule = NoiseSchedule.fast() if levels is None else NoiseSchedule.fast(levels=levels)
    if parameters.coils is not None:
        raw, _ = to_virtual_coils(raw, parameters.coils)
    image = reconstruct(
        raw,
        prior=load_prior(parameters.prior or DEFAULT_PRIOR),
        schedule=schedule,
        seed=seed,
        device=find_device(parameters.gpu),
        show_pbar=False,
    )
    return mrd_images(image, raw, f"hggdp_plugin fire, {schedule.evaluations} evaluations, seed {seed}")


def _report(connection: Connection, error: Exception) -> None:
    """Send an error to the client in one line, where the server supports it, and log it."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}, see the server's log"
    line = " ".join(f"hggdp_plugin: {text}".split())
    _logger.error(line, exc_info=None if isinstance(error, io.InputError) else error)
    try:
        if hasattr(connection, "send_logging"):
            connection.send_logging("ERROR   ", line)
    except Exception as gone:
        _logger.warning("The error could not be sent to the client: %s", gone)
