"""``hggdp recon --cluster``: many files on the workers of a Dask cluster."""

import argparse
import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hggdp_plugin import __version__
from hggdp_plugin.apps._cli import input_file, sole_writer
from hggdp_plugin.apps._recon_input import AUTO, PIPE, check_number_of_images, read_input
from hggdp_plugin.cohort.cluster import SLURM, ClusterOptions, connected, job_script
from hggdp_plugin.cohort.manifest import MANIFEST, Entry, Manifest
from hggdp_plugin.cohort.page import PAGE, write_page, write_thumbnail
from hggdp_plugin.cohort.run import CohortRun, begin_entry
from hggdp_plugin.cohort.work import Plan, Result, sha256_of
from hggdp_plugin.io.files import InputError, check_output, check_std_output, files_of
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.log import collected_log

if TYPE_CHECKING:
    from hggdp_plugin.apps._recon_job import ReconJob
    from hggdp_plugin.volume.reconstruct import VolumeRecon

#: Options that do not change an image.
NO_SETTINGS = {
    *("raw", "output", "output_dir", "format", "overwrite", "log", "report", "gpu", "quiet"),
    *("cluster", "workers", "memory_per_worker", "dry_run"),
}
#: Seconds to wait for a task that was given up, as its worker was thought lost, and still writes the same image.
PATIENCE = 600.0
#: Folder of the thumbnails, beside the images.
THUMBNAILS = "thumbnails"

_logger = logging.getLogger(__name__)


def run_cohort(args: argparse.Namespace, name_output: Callable[[argparse.Namespace, Path], str]) -> int:
    """Reconstruct all inputs on a cluster. What was done by an earlier run, and has not changed, is left as it is.

    Args:
        args (Namespace): The parsed options.
        name_output (function): Gives the output of an input.

    Returns:
        int: The exit code: 1 if a file failed.

    Raises:
        InputError: The options do not go together, or there is no such cluster.
    """
    if args.output_dir is None or args.report or args.samples_out or Path(PIPE) in args.raw:
        problem = "a cohort goes from files into a folder with a manifest and a page"
        raise InputError("--cluster", problem, "give files and --output-dir, without --report and --samples-out")
    options = ClusterOptions(args.cluster, args.workers, args.memory_per_worker, args.gpu is not None)
    args = _absolute(args)
    settings = _settings(args)
    try:
        args.output_dir.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(args.output_dir, f"the folder cannot be made ({error})", "choose another") from None
    with sole_writer(args.output_dir / MANIFEST):
        manifest = Manifest(args.output_dir / MANIFEST)
        todo = _enter(args, manifest, settings, name_output)
        n_files, n_pending = len(args.raw), sum(entry.state == "pending" for entry in todo)
        _logger.info("%d files: %d to reconstruct, %d unchanged.", n_files, n_pending, n_files - len(todo))
        if args.dry_run:
            _show_plan(todo, options)
            return 0
        start = time.monotonic()
        try:
            _reconstruct(args, [entry for entry in todo if entry.state == "pending"], settings, manifest, options)
        finally:
            manifest.save()
            write_page(args.output_dir / PAGE, manifest)
        n_failed = sum(manifest.entries[str(path)].state == "failed" for path in args.raw)
        done, seconds = n_pending - sum(entry.state == "failed" for entry in todo), time.monotonic() - start
        _logger.info(
            "%d files done, %d failed, in %.1f s: %s.", max(done, 0), n_failed, seconds, args.output_dir / PAGE
        )
    return 1 if n_failed else 0


def _reconstruct(
    args: argparse.Namespace, entries: list[Entry], settings: str, manifest: Manifest, options: ClusterOptions
) -> None:
    if not entries:
        return
    manifest.save()
    with connected(options) as client:
        CohortRun(client, ReconWork(_for_workers(args), settings), settings, manifest, show_pbar=not args.quiet).run(
            entries
        )


def _enter(
    args: argparse.Namespace,
    manifest: Manifest,
    settings: str,
    name_output: Callable[[argparse.Namespace, Path], str],
) -> list[Entry]:
    """Enter the inputs into the manifest, and return those that are to be reconstructed or cannot be."""
    todo: list[Entry] = []
    outputs: dict[str, Path] = {}
    for number, given in enumerate(args.raw):
        path, problem = given, None
        try:
            path = args.raw[number] = input_file(given, "raw data or k-space", (".dat",))
        except InputError as error:
            problem = str(error)
        output = name_output(args, path)
        if output in outputs:
            raise InputError(output, f"it is the output of both {outputs[output]} and {path}", "reconstruct them apart")
        outputs[output] = path
        known = manifest.entries.get(str(path))
        ours = known is not None and known.output == output
        entry = begin_entry(manifest, str(path), output, settings)
        if entry is None:
            continue
        todo.append(entry)
        overwrite = args.overwrite or ours or _is_record(output, str(path))
        try:
            for check in (check_output, check_std_output)[: 1 + args.uncertainty]:
                check(output, inputs=args.raw, overwrite=overwrite)
        except InputError as error:
            problem = problem or str(error)
        if problem:
            entry.state, entry.reason = "failed", problem
            _logger.error("%s", problem)
    return todo


def _show_plan(todo: list[Entry], options: ClusterOptions) -> None:
    for entry in todo:
        _logger.info("%s -> %s", entry.file, entry.reason or entry.output)
    if options.kind == SLURM:
        _logger.info("Job script, submitted %d times:\n%s", options.workers, job_script(options))
    else:
        _logger.info("Cluster: %s, %s workers.", options.kind, options.workers or "as many as fit")


def _absolute(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options with absolute paths: workers may have another working directory."""
    args = copy.copy(args)
    args.raw = [path.absolute() for path in args.raw]
    for name in ("output_dir", "mps", "coord"):
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).absolute())
    args.mps = input_file(args.mps, "coil maps") if args.mps else None
    args.coord = input_file(args.coord, "a trajectory") if args.coord else None
    if args.prior and Path(args.prior).is_file():
        args.prior = str(Path(args.prior).absolute())
    return args


def _for_workers(args: argparse.Namespace) -> argparse.Namespace:
    """Return what workers need of the options."""
    args = copy.copy(args)
    args.raw, args.log, args.quiet, args.report, args.overwrite = [], None, True, None, True
    args.gpu = None if args.gpu is None else 0  # the only one that a worker sees
    return args


def _settings(args: argparse.Namespace) -> str:
    """Return a digest of all that determines an image beside its input."""
    options = {name: str(value) for name, value in vars(args).items() if name not in NO_SETTINGS}
    files = [args.mps, args.coord, args.prior if args.prior and Path(args.prior).is_file() else None]
    digests = [sha256_of(str(part)) for path in files if path for part in files_of(path) if Path(part).is_file()]
    text = json.dumps([options, digests, args.gpu is not None, __version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ReconWork:
    """How workers reconstruct: each task finds the prior, and mostly the measurement too, in the worker's memory.

    Attributes:
        args (Namespace): The parsed options.
        settings (str): Their digest.
    """

    args: argparse.Namespace = field(hash=False, compare=False)
    settings: str

    def plan(self, path: str, output: str) -> Plan:
        """Read a file, and begin or continue its store of batches."""
        sha256 = sha256_of(path)
        if (result := self._finished(path, output, sha256)) is not None:
            return Plan(sha256, result.slices, result.slices, result=result)
        opened = _opened(self, path, output)
        n_frames = int(opened.raw.measured_frames.sum())
        if self.args.prior == AUTO:  # the choice is part of the last task
            return Plan(sha256, n_frames)
        volume = opened.volume
        missing = [start for start in volume.starts if volume.resume is not None and start not in volume.resume]
        n_missing = sum(min(volume.size.slices, n_frames - start) for start in missing)
        return Plan(sha256, n_frames, n_frames - n_missing if volume.resume else 0, missing)

    def batch(self, path: str, output: str, start: int) -> int:
        """Reconstruct one batch into the store, and return its number of slices."""
        return _opened(self, path, output).volume.run_batch(start)

    def finish(self, path: str, output: str, sha256: str) -> Result:
        """Reconstruct what the store lacks, and write the image, the record and the thumbnail."""
        with _sole_writer(Path(output)):
            if (result := self._finished(path, output, sha256)) is not None:
                return result  # by a worker that was thought lost
            start = time.monotonic()
            opened = _opened(self, path, output)
            with collected_log() as messages:
                messages.extend(opened.messages)
                facts = {"sha256": sha256, "settings": self.settings}
                image = _job(self).run(opened.raw, Path(path), output, messages, start, **facts)
            write_thumbnail(_thumbnail(output), image)
        _opened.cache.clear()
        result = self._finished(path, output, sha256)
        assert result is not None
        return result

    def _finished(self, path: str, output: str, sha256: str) -> Result | None:
        """Return what the record says, if the image was made from this input with these options."""
        record = _record(output)
        known = record.get("input", {})
        if (known.get("file"), known.get("sha256"), known.get("settings")) != (path, sha256, self.settings):
            return None
        if not Path(output).is_dir() and not all(part.exists() for part in files_of(output)):
            return None
        shape = record["output"]["shape"]
        thumbnail = _thumbnail(output)
        return Result(
            slices=len(record["estimates"]) or prod(shape[:-2]),
            warnings=list(dict.fromkeys(record["warnings"])),
            self_check=_worst(record["self_check"]),
            thumbnail=f"{THUMBNAILS}/{thumbnail.name}" if thumbnail.exists() else None,
        )


@cache
def _job(work: ReconWork) -> "ReconJob":
    """Return the job of these options, whose prior is loaded once per worker."""
    from hggdp_plugin.apps._recon_job import ReconJob  # the client needs no PyTorch

    return ReconJob(work.args)


class _Opened:
    """The measurement that a worker has in its memory."""

    def __init__(self, work: ReconWork, path: str, output: str) -> None:
        self._work, self._output = work, output
        with collected_log() as self.messages:
            self.raw: RawData = read_input(work.args, Path(path))
            check_number_of_images(self.raw, output)
            _logger.info(self.raw.summary())
        self._volume: VolumeRecon | None = None

    @property
    def volume(self) -> "VolumeRecon":
        """Its batches; they begin, or continue, the store."""
        if self._volume is None:
            self._volume = _job(self._work).volume(self.raw, self._output)
        return self._volume


class _Last:
    """Calls of :class:`_Opened`, of which the last one is kept."""

    def __init__(self) -> None:
        self.cache: dict[object, _Opened] = {}

    def __call__(self, work: ReconWork, path: str, output: str) -> _Opened:
        status = Path(path).stat()
        key = work, path, output, status.st_mtime_ns, status.st_size
        if key not in self.cache:
            self.cache.clear()  # before the next one needs the memory
            self.cache[key] = _Opened(work, path, output)
        return self.cache[key]


_opened = _Last()


@contextmanager
def _sole_writer(output: Path) -> Iterator[None]:
    """Wait until no other process writes an output."""
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(sole_writer(output))
                break
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def _thumbnail(output: str) -> Path:
    return Path(output).parent / THUMBNAILS / f"{Path(output).name}.png"


def _record(output: str) -> dict[str, Any]:
    try:
        return json.loads(Path(f"{Path(output)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _is_record(output: str, path: str) -> bool:
    """Return whether an output was made from this file by a cohort whose manifest is lost."""
    known = _record(output).get("input", {})
    return known.get("file") == path and "settings" in known


def _worst(checks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the worst figures of a self-check."""
    if not checks:
        return None

    def largest(name: str) -> float | None:
        return max((check[name] for check in checks if check.get(name) is not None), default=None)

    unfit = sum(not check["prior_fits"] for check in checks)
    return {"prediction_error": largest("prediction_error"), "residual": largest("residual"), "unfit_slices": unfit}
