"""One reconstruction of ``hggdp recon`` after another: reconstruct and write what was read."""

import argparse
import logging
import sys
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hggdp_plugin import io
from hggdp_plugin._typing import Array
from hggdp_plugin.apps._cli import find_device, refusals
from hggdp_plugin.apps._recon_input import AUTO
from hggdp_plugin.checkpoint import DEFAULT_PRIOR, bundled_priors
from hggdp_plugin.coil_compression import compress_coils
from hggdp_plugin.io.files import InputError, replacing, std_path, suffix_of
from hggdp_plugin.io.mrd.images import WINDOW_PERCENTILE
from hggdp_plugin.io.mrd.stream import write_pipe
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.record import Record, describe, prior_digest
from hggdp_plugin.report import Report, write_report, zero_filled_image
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.validation import check_reference_noise, sets_axis
from hggdp_plugin.volume.calibration import to_virtual_coils
from hggdp_plugin.volume.reconstruct import VolumeRecon, reconstruct
from hggdp_plugin.volume.resume import ResumeStore
from hggdp_plugin.volume.samples import spread
from hggdp_plugin.volume.selfcheck import FRAMES_TO_CHOOSE, check_frames, report_check
from hggdp_plugin.volume.uncertainty import VolumeUncertainty

_logger = logging.getLogger(__name__)


class ReconJob:
    """Reconstructions with the options of one command line.

    Args:
        args (Namespace): The parsed options.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.prior_name = args.prior or DEFAULT_PRIOR
        self.check_text = ""
        self.device = find_device(args.gpu)

    @cached_property
    def priors(self) -> dict[str, ScorePrior]:
        """The priors that the options ask for; loaded after the first input was read, so that bad files answer soon."""
        names = bundled_priors() if self.args.prior == AUTO else [self.args.prior or DEFAULT_PRIOR]
        with refusals("--prior", "recon"):
            return {name: load_prior(name, autocast=not self.args.float32) for name in names}

    @property
    def prior(self) -> ScorePrior:
        """The prior of the present measurement."""
        return self.priors[self.prior_name]

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The schedule that the options ask for."""
        args = self.args
        options = {name: value for name in ("levels", "steps") if (value := getattr(args, name)) is not None}
        with refusals("--schedule", "recon"):
            if args.schedule == "hggdp":
                return NoiseSchedule.hggdp(**options, reference_noise=args.reference_noise)
            if args.reference_noise:
                raise ValueError("--reference-noise requires --schedule hggdp")
            if args.schedule == "posterior":
                return NoiseSchedule.posterior(**options)
            if "steps" in options:
                raise ValueError(
                    f"--steps requires --schedule hggdp or posterior; {args.schedule} makes one step per level"
                )
            return NoiseSchedule.quick(**options) if args.schedule == "quick" else NoiseSchedule.fast(**options)

    def run(
        self,
        raw: io.RawData,
        path: Path,
        output: str,
        messages: list[tuple[str, str]],
        start: float,
        **facts: object,
    ) -> Array:
        """Reconstruct and write one measurement.

        Args:
            raw (RawData): The measurement.
            path (Path): Where it came from.
            output (str): Image to write, or ``-`` for standard output.
            messages (list): The log, as it is collected.
            start (float): When the reading began, by ``time.monotonic``.
            **facts (object): Further facts of the input, for the record.

        Returns:
            array: The image.

        Raises:
            InputError: If it cannot be reconstructed or written.
        """
        args, read = self.args, time.monotonic()
        record = Record(input={"file": str(path), **describe(raw), **facts}, messages=messages)
        priors, _ = self.priors, self.schedule  # unusable ones are refused before the work
        raw, mps = self._coils(raw)
        self.prior_name = next(iter(priors))
        if args.self_check or len(priors) > 1:
            self._check(raw, mps, record)
        uncertainty = VolumeUncertainty() if args.uncertainty else None
        image, stores = self._reconstruct(raw, mps, record, output, uncertainty)
        record.seconds = {"reading": read - start, "maps and reconstruction": time.monotonic() - read}
        self._write(output, image, raw, uncertainty)
        for store in stores:
            store.remove()
        if output != "-":
            _logger.info("Wrote %s in %.1f s.", output, time.monotonic() - start)
            self._write_record(record, output, image, uncertainty)
        if args.report is not None:
            self._write_report(path, raw, image, record, uncertainty)
        return image

    def volume(self, raw: io.RawData, output: str) -> VolumeRecon:
        """Sort a measurement into batches, which other processes can reconstruct for the same output.

        Args:
            raw (RawData): The measurement.
            output (str): The image that :meth:`run` will write.

        Returns:
            VolumeRecon: The batches, with the store that :meth:`run` uses.
        """
        raw, mps = self._coils(raw)
        self.prior_name = next(iter(self.priors))
        uncertainty = VolumeUncertainty() if self.args.uncertainty else None
        store = ResumeStore(Path(f"{Path(output)}.part"))
        return VolumeRecon(raw, mps, **self._method(), resume=store, uncertainty=uncertainty)

    def _method(self) -> dict[str, Any]:
        """Return how every measurement is reconstructed, as arguments of :func:`reconstruct`."""
        args = self.args
        return {
            "noise_var": args.noise_var,
            "prior": self.prior,
            "schedule": self.schedule,
            "samples": args.samples,
            "seed": args.seed,
            "max_cg_iter": args.max_cg_iter,
            "calib_width": args.calib_width,
            "batch_size": args.batch_size,
            "maps": args.maps,
            "device": self.device,
        }

    def _reconstruct(
        self,
        raw: io.RawData,
        mps: Array | None,
        record: Record,
        output: str,
        uncertainty: VolumeUncertainty | None,
    ) -> tuple[np.ndarray, list[ResumeStore]]:
        """Return the image, and the stores that can be removed once it is written."""
        args = self.args
        apart = args.samples_out is not None
        images, stores = [], []
        for number in range(args.samples if apart else 1):
            store = None if output == "-" else ResumeStore(Path(f"{Path(output)}.part{number or ''}"))
            image = reconstruct(
                raw,
                mps,
                **self._method() | ({"samples": 1, "seed": args.seed + number} if apart else {}),
                resume=store,
                show_pbar=not args.quiet,
                on_batch=record.estimates.extend if number == 0 else None,
                uncertainty=uncertainty if number == 0 else None,
            )
            images.append(image)
            stores += [store] if store is not None else []
        if apart:
            self._write_samples(np.stack(images), raw, record)
        return np.mean(images, axis=0) if apart else images[0], stores

    def _write_samples(self, samples: np.ndarray, raw: io.RawData, record: Record) -> None:
        """Write the samples, and note how they differ."""
        path = self.args.samples_out
        with replacing(path) as temporary:
            np.save(temporary, samples)
        on_grid = raw.mask is not None and raw.mask.shape == samples.shape[1:]
        record.samples = {"file": str(path), "spread": asdict(spread(samples, raw.mask if on_grid else None))}
        _logger.info("Wrote %s.", path)

    @property
    def history(self) -> str:
        """How images are made, in one line."""
        how = f"{self.args.schedule}, {self.schedule.evaluations} evaluations, seed {self.args.seed}"
        return f"hggdp_plugin {how}{self.check_text}"

    def _check(self, raw: io.RawData, mps: Array | None, record: Record) -> None:
        """Choose the prior that fits the measurement best, and note how well it fits."""
        args = self.args
        n_frames = None if args.self_check else FRAMES_TO_CHOOSE
        options = {"n_frames": n_frames, "calib_width": args.calib_width, "seed": args.seed, "device": self.device}
        volume = check_frames(raw, self.priors, mps, args.noise_var, **options)
        self.prior_name = volume.best
        self.check_text = f"; {report_check(volume, self.prior_name)}"
        record.self_check = volume.records(self.prior_name)

    def _coils(self, raw: io.RawData) -> tuple[io.RawData, Array | None]:
        """Return the measurement in the coils that the options ask for, and the coil maps if they are given."""
        args = self.args
        mps = _given_maps(args.mps, raw, args.maps) if args.mps else None
        if args.coils:
            with refusals("--coils", "recon"):
                raw, matrix = to_virtual_coils(raw, args.coils)
            mps = None if mps is None else compress_coils(matrix, mps, len(raw.grid))
        if args.reference_noise:
            with refusals("--reference-noise", "recon"):
                check_reference_noise(mps, None, raw.coord)
        return raw, mps

    def _write(self, output: str, image: np.ndarray, raw: io.RawData, uncertainty: VolumeUncertainty | None) -> None:
        std = uncertainty.std if uncertainty else None
        keep_phase = self.args.complex or suffix_of(output) == ".cfl"  # BART's images are complex
        if output != "-":
            options = {"raw": raw, "complex_": keep_phase, "overwrite": self.args.overwrite, "history": self.history}
            io.write_image(output, image, std=std, **options)
            return
        window = (0.0, float(np.percentile(np.abs(image), WINDOW_PERCENTILE)))
        values = image if keep_phase else np.abs(image)
        write_pipe(sys.stdout.buffer, values, raw, window, self.history, std)

    def _write_record(
        self, record: Record, output: str, image: np.ndarray, uncertainty: VolumeUncertainty | None
    ) -> None:
        args = self.args
        record.options = {
            "prior": self.prior_name,
            "prior_sha256": prior_digest(self.prior),
            "schedule": args.schedule,
            "sigmas": [float(sigma) for sigma in self.schedule.sigmas],
            "steps": self.schedule.steps,
            "rule": repr(self.schedule.rule),
            "samples": args.samples,
            "seed": args.seed,
            "noise_var": args.noise_var,
            "max_cg_iter": args.max_cg_iter,
            "virtual_coils": args.coils,
            "calib_width": args.calib_width,
            "maps": None if args.mps is None else str(args.mps),
            "sets_of_maps": args.maps,
            "trajectory": None if args.coord is None else str(args.coord),
            "float32": args.float32,
            "device": str(self.device),
        }
        record.output = {"file": output, "shape": list(image.shape)}
        if uncertainty:
            factor = None if uncertainty.factor is None else asdict(uncertainty.factor)
            record.uncertainty = {
                "file": std_path(output),
                "copies": uncertainty.copies,
                "sampling": uncertainty.family,
                "conformal_factor": factor,
                "frames": uncertainty.frames,
            }
        record.write(Path(f"{Path(output)}.json"))

    def _write_report(
        self,
        path: Path,
        raw: io.RawData,
        image: np.ndarray,
        record: Record,
        uncertainty: VolumeUncertainty | None,
    ) -> None:
        args = self.args
        first = next(zip(*raw.measured_frames.nonzero(), strict=True))
        facts = {"method": self.history, "prior": self.prior_name, "samples averaged": args.samples}
        report = Report(
            title=path.name,
            image=image,
            zero_filled=zero_filled_image(raw),
            std=uncertainty.std if uncertainty else None,
            mask=None if raw.mask is None else raw.mask[first],
            messages=record.messages,
            facts=facts,
            seconds=record.seconds,
        )
        write_report(args.report, report)
        _logger.info("Wrote %s.", args.report)


def _given_maps(path: Path, raw: io.RawData, maps: int) -> Array:
    mps = io.read_maps(path, raw.slice_axis, maps)
    shape = (*sets_axis(maps), raw.n_coils, *raw.grid)
    if mps.shape not in ((1, *shape), (raw.n_slices, *shape)):
        axes = f"({'maps, ' if maps > 1 else ''}coils, y, x)"
        expected = f"{axes} = {shape}, or the same with {raw.n_slices} slices in front"
        raise InputError(path, f"maps of shape {mps.shape}, expected {expected}", "use maps of this measurement")
    return mps
