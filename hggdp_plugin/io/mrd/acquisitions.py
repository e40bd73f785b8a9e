"""The acquisitions of one ISMRMRD measurement: their headers, samples and trajectories."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.mrd._ismrmrd import acquisition_header_dtype, ismrmrd
from hggdp_plugin.io.raw import MAX_SAMPLE

#: Bytes of samples that are processed at once: few enough to stay in the cache of the processor.
BLOCK_BYTES = 1 << 22
#: What to do about a file that is damaged or badly converted.
CONVERT_AGAIN = "convert the raw data again, or copy the file again if it was cut short"


@dataclass(frozen=True)
class Acquisitions:
    """The acquisitions of one measurement, in a file or in memory.

    Attributes:
        headers (array): Acquisition headers (acquisitions,), of ``acquisition_header_dtype``.
        fetch (function): ``fetch(start, stop)`` returns two object arrays with a flat float array per acquisition:
            the samples, real and imaginary parts in turn, of shape (channels, samples), and the trajectory, of shape
            (samples, dimensions).
        source (str): File and group, for messages.
    """

    headers: np.ndarray
    fetch: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    source: str

    @classmethod
    def from_objects(cls, objects: Sequence["ismrmrd.Acquisition"], source: str) -> "Acquisitions":
        """Collect acquisitions of the ismrmrd package.

        Args:
            objects (sequence of ismrmrd.Acquisition): At least one.
            source (str): Where they come from, for messages.

        Returns:
            Acquisitions: They refer to the same memory.
        """

        def flat(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array).view(np.float32).reshape(-1)

        def fetch(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            data, traj = np.empty(stop - start, object), np.empty(stop - start, object)
            for i, acquisition in enumerate(objects[start:stop]):
                data[i], traj[i] = flat(acquisition.data), flat(acquisition.traj)
            return data, traj

        headers = np.frombuffer(b"".join(bytes(a.getHead()) for a in objects), acquisition_header_dtype)
        return cls(headers, fetch, source)

    def __len__(self) -> int:
        """Return the number of acquisitions."""
        return len(self.headers)

    @property
    def location(self) -> str:
        """Where the acquisitions lie, for messages."""
        return f"{self.source}/data"

    def location_of(self, number: int) -> str:
        """Return where an acquisition lies, for messages."""
        return f"{self.location} acquisition {number}"

    def flagged(self, flag: int) -> np.ndarray:
        """Return which acquisitions carry a flag (counted from 1, as the standard does), bool (acquisitions,)."""
        return flagged(self.headers, flag)

    def samples(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read the samples of acquisitions, in blocks of one shape.

        Args:
            wanted (array): Which acquisitions, bool (acquisitions,).

        Yields:
            tuple: Numbers of n acquisitions, and their samples, complex64 (n, channels, samples).

        Raises:
            InputError: If the data of an acquisition do not have the length that its header says.
        """
        for numbers, data, _ in self._blocks(wanted, with_trajectory=False):
            yield numbers, data

    def trajectories(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read the samples of acquisitions and their k-space coordinates, in blocks of one shape.

        Args:
            wanted (array): Which acquisitions, bool (acquisitions,).

        Yields:
            tuple: Numbers of n acquisitions, their samples, complex64 (n, channels, samples), and their trajectories,
            float32 (n, samples, dimensions).

        Raises:
            InputError: If data or trajectory of an acquisition do not have the length that its header says.
        """
        return self._blocks(wanted, with_trajectory=True)

    def _blocks(self, wanted: np.ndarray, with_trajectory: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        headers = self.headers
        fields = ("active_channels", "number_of_samples", "trajectory_dimensions")
        shapes = np.stack([headers[name] for name in fields], axis=1).astype(np.int64)
        if not with_trajectory:
            shapes[:, 2] = 0
        chosen = np.flatnonzero(wanted)
        step = max(1, BLOCK_BYTES // max(1, int(np.median(8 * shapes[chosen, :2].prod(axis=1))))) if chosen.size else 1
        while chosen.size:
            count = int(np.searchsorted(chosen, chosen[0] + step))
            block, chosen = chosen[:count], chosen[count:]
            start = int(block[0])
            data, traj = self.fetch(start, int(block[-1]) + 1)
            self._check_lengths("data", block, data[block - start], 2 * shapes[block, :2].prod(axis=1))
            if with_trajectory:
                self._check_lengths("traj", block, traj[block - start], shapes[block, 1:].prod(axis=1))
            for shape in np.unique(shapes[block], axis=0):
                numbers = block[(shapes[block] == shape).all(axis=1)]
                channels, samples, dims = (int(n) for n in shape)
                values = _joined(data[numbers - start]).view(np.complex64).reshape(len(numbers), channels, samples)
                coord = np.zeros((len(numbers), samples, 0), np.float32)
                if dims:
                    coord = _joined(traj[numbers - start]).reshape(len(numbers), samples, dims)
                yield numbers, values, coord

    def _check_lengths(self, field: str, numbers: np.ndarray, payload: np.ndarray, expected: np.ndarray) -> None:
        found = np.fromiter(map(len, payload), np.int64, len(payload))
        if (found != expected).any():
            wrong = int(np.argmax(found != expected))
            raise InputError(
                self.location_of(numbers[wrong]),
                f"its header announces {expected[wrong]} numbers of {field}, the file holds {found[wrong]}",
                CONVERT_AGAIN,
            )

    def kept_samples(self, wanted: np.ndarray) -> np.ndarray:
        """Count the samples that remain after ``discard_pre`` and ``discard_post``.

        Args:
            wanted (array): Which acquisitions, bool (acquisitions,).

        Returns:
            array: int64 (acquisitions,); 0 for those not wanted.

        Raises:
            InputError: If nothing remains of an acquisition.
        """
        headers = self.headers
        count = headers["number_of_samples"].astype(np.int64) - headers["discard_pre"] - headers["discard_post"]
        if (wanted & (count < 1)).any():
            raise InputError(
                self.location_of(int(np.argmax(wanted & (count < 1)))),
                "discard_pre and discard_post leave no sample of it",
                "correct the header of the acquisition",
            )
        return np.where(wanted, count, 0)

    def check_finite(self, samples: np.ndarray, numbers: np.ndarray) -> None:
        """Refuse samples that are NaN, infinite or so large that their squares overflow.

        Args:
            samples (array): complex (acquisitions, ...), contiguous.
            numbers (array): Numbers of the acquisitions.

        Raises:
            InputError: If there are any; the message names the first acquisition that holds one.
        """
        parts = samples.reshape(len(numbers), -1).view(samples.real.dtype)
        if parts.min() > -MAX_SAMPLE and parts.max() < MAX_SAMPLE:  # false for NaN
            return
        raise InputError(
            self.location_of(numbers[np.argmin((np.abs(parts) < MAX_SAMPLE).all(axis=1))]),
            "it holds samples that are not finite (NaN or infinite)",
            "convert the raw data again, or remove the acquisition",
        )


def flagged(headers: np.ndarray, flag: int) -> np.ndarray:
    """Return which acquisition headers carry a flag, counted from 1 as the standard does."""
    return np.asarray((headers["flags"] >> np.uint64(flag - 1)) & np.uint64(1) == 1)


def _joined(payload: np.ndarray) -> np.ndarray:
    return np.concatenate(list(payload)).astype(np.float32, copy=False)
