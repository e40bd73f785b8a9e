"""Send the tasks of a cohort to the workers, and survive what happens to workers and connections."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hggdp_plugin.cohort.cluster import address_of, reconnect
from hggdp_plugin.cohort.manifest import Entry, Manifest, file_state
from hggdp_plugin.cohort.progress import CohortProgress
from hggdp_plugin.cohort.work import Outcome, Plan, Work, perform
from hggdp_plugin.io.files import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

#: Seconds to wait for a scheduler whose connection was lost.
PATIENCE = 60.0
#: Files that are begun at the same time, beyond one per worker: the next one is read before the last one is finished.
FILES_AHEAD = 2

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _File:
    """A file at work.

    Attributes:
        entry (Entry): Its line in the manifest.
        number (int): Its place in the cohort: earlier files go first.
        plan (Plan or None): What there is to do, once it is known.
        missing (int): Number of batches that are not finished.
        done (int): Number of slices that are finished.
        worker (str): The worker that has read it.
        seconds (float): Time that workers spent on it.
    """

    entry: Entry
    number: int
    plan: Plan | None = None
    missing: int = 0
    done: int = 0
    worker: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Task:
    file: _File
    kind: str
    args: tuple[object, ...] = ()


class CohortRun:
    """Reconstructs files on the workers of a Dask cluster, and keeps the manifest.

    The arrays never pass through the scheduler: workers read the inputs, and store batches and images, in folders that
    all of them share. The batches of a file go to the worker that has read it, unless there are idle ones. What a lost
    worker has not stored, another one does again.

    Args:
        client (Client): Client of the cluster.
        work (Work): How to reconstruct.
        settings (str): Digest of the options, for the manifest.
        manifest (Manifest): Where the states of the files are kept.
        show_pbar (bool): Show the progress.
    """

    def __init__(
        self, client: "Client", work: Work, settings: str, manifest: Manifest, *, show_pbar: bool = True
    ) -> None:
        self.client, self.work, self.settings, self.manifest = client, work, settings, manifest
        self.show_pbar = show_pbar
        self._tasks: dict[Future, _Task] = {}
        self._open: set[_File] = set()
        self._suspects: list[_File] = []
        self._address = address_of(client)
        self._seen: set[int] = set()
        self._workers, self._counted = 0, float("-inf")

    def run(self, entries: Sequence[Entry]) -> None:
        """Reconstruct files. Those that cannot be are failed in the manifest, with the reason.

        Args:
            entries (sequence of Entry): The files.

        Raises:
            InputError: The connection to the scheduler is lost for good.
        """
        self._progress = CohortProgress(len(entries), self.show_pbar)
        try:
            self._work_off(deque(_File(entry, number) for number, entry in enumerate(entries)))
            # What killed workers may have been a neighbor on the same worker. Alone, the guilty one shows.
            for file in self._suspects:
                self._work_off(deque([_File(file.entry, file.number)]), alone=True)
        finally:
            self._progress.close()
            self.manifest.save()

    def _work_off(self, queue: deque[_File], alone: bool = False) -> None:
        while queue or self._tasks:
            n_workers = self._n_workers()
            while queue and len(self._open) < n_workers + FILES_AHEAD:
                file = queue.popleft()
                self._open.add(file)
                self._submit(_Task(file, "plan"), n_workers)
            for future in self._finished():
                task = self._tasks.pop(future)
                self._handle(future, task, n_workers, alone)
            self.manifest.save(at_once=False)
            self._progress.show(n_workers)

    def _submit(self, task: _Task, n_workers: int) -> None:
        """Submit a task; near the data that a worker has read already, as long as there is work for all."""
        file = task.file
        near = {"workers": [file.worker], "allow_other_workers": True} if len(self._open) >= n_workers else {}
        future = self.client.submit(
            perform,
            self.work,
            task.kind,
            file.entry.file,
            file.entry.output,
            *task.args,
            pure=False,
            priority=-file.number,
            **(near if file.worker else {}),
        )
        self._tasks[future] = task

    def _finished(self) -> "list[Future]":
        """Wait a moment, and return the tasks that are no longer pending."""
        from distributed import CancelledError, wait

        with suppress(TimeoutError, CancelledError, ValueError):  # cancelled with the connection; no tasks
            wait(list(self._tasks), timeout=1, return_when="FIRST_COMPLETED")
        return [future for future in self._tasks if future.status != "pending"]

    def _handle(self, future: "Future", task: _Task, n_workers: int, alone: bool) -> None:
        from distributed.scheduler import KilledWorker

        try:
            outcome = future.result(timeout=PATIENCE)
        except KilledWorker:
            self._killed(task.file, alone)
            return
        except Exception as error:  # cancelled with the connection, or the result was on a worker that died
            if future.status == "error":
                self._fail(task.file, f"{type(error).__name__}: {' '.join(str(error).split())}")
                return
            self._ensure_connection()
            if task.file in self._open:
                self._submit(task, n_workers)
            return
        if task.file in self._open:
            self._advance(task, outcome, n_workers)

    def _advance(self, task: _Task, outcome: Outcome, n_workers: int) -> None:
        """Do what comes after a task."""
        file = task.file
        file.seconds += outcome.seconds
        if outcome.details:
            _logger.error("%s", outcome.details)
        if outcome.reason is not None:
            self._fail(file, outcome.reason)
        elif task.kind == "plan":
            self._begin(file, outcome, n_workers)
        elif task.kind == "batch":
            self._progress.advance(outcome.value)
            file.done += outcome.value
            file.missing -= 1
            if not file.missing:
                self._finish(file, n_workers)
        else:
            self._progress.advance(outcome.value.slices - file.done)
            self._done(file, outcome.value)

    def _begin(self, file: _File, outcome: Outcome, n_workers: int) -> None:
        plan = file.plan = outcome.value
        file.worker, file.missing, file.done = outcome.worker, len(plan.starts), plan.finished
        file.entry.sha256, file.entry.slices = plan.sha256, plan.slices
        if file.number not in self._seen:
            self._progress.open_file(plan.slices, plan.finished)
        self._seen.add(file.number)
        if plan.result is not None:
            self._done(file, plan.result)
            return
        for start in plan.starts:
            self._submit(_Task(file, "batch", (start,)), n_workers)
        if not plan.starts:
            self._finish(file, n_workers)

    def _finish(self, file: _File, n_workers: int) -> None:
        assert file.plan is not None
        self._submit(_Task(file, "finish", (file.plan.sha256,)), n_workers)

    def _done(self, file: _File, result: Any) -> None:
        entry = file.entry
        entry.state, entry.reason, entry.settings = "done", None, self.settings
        entry.slices, entry.warnings = result.slices, list(result.warnings)
        entry.self_check, entry.thumbnail = result.self_check, result.thumbnail
        self._close(file, failed=False)

    def _fail(self, file: _File, reason: str) -> None:
        file.entry.state, file.entry.reason = "failed", reason
        _logger.error("%s", reason if file.entry.file in reason else f"{file.entry.file}: {reason}")
        self._close(file, failed=True)

    def _close(self, file: _File, failed: bool) -> None:
        file.entry.seconds = round(file.seconds, 3)
        self._open.discard(file)
        for future in [future for future, task in self._tasks.items() if task.file is file]:
            future.cancel()
            del self._tasks[future]
        self._progress.close_file(failed=failed, opened=file.plan is not None)

    def _killed(self, file: _File, alone: bool) -> None:
        if file not in self._open:
            return
        if alone:
            reason = "its workers were killed again and again, perhaps for lack of memory"
            self._fail(
                file, f"{reason}; give more (--memory-per-worker), or take fewer slices at a time (--batch-size)"
            )
            return
        self._suspects.append(file)
        self._open.discard(file)
        for future in [future for future, task in self._tasks.items() if task.file is file]:
            del self._tasks[future]

    def _n_workers(self) -> int:
        """Return how many workers there are, asking the scheduler now and then."""
        now = time.monotonic()
        if self.client.status == "running" and now > self._counted + 1:
            with suppress(OSError, TimeoutError):
                self._workers, self._counted = len(self.client.nthreads()), now
        return self._workers

    def _ensure_connection(self) -> None:
        """Wait until the client is connected; if it has given up, make another one."""
        deadline = time.monotonic() + PATIENCE
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.1)
        while self.client.status != "running":
            _logger.warning("The connection to the scheduler is lost; trying again.")
            try:
                self.client = reconnect(self._address)
            except InputError:
                if time.monotonic() > deadline:
                    problem = "the connection to the scheduler is lost"
                    raise InputError("--cluster", problem, "the same command continues") from None
                time.sleep(1)


def begin_entry(manifest: Manifest, path: str, output: str, settings: str) -> Entry | None:
    """Enter a file into a manifest.

    Args:
        manifest (Manifest): The manifest.
        path (str): Absolute path of the file.
        output (str): Absolute path of the image.
        settings (str): Digest of the options.

    Returns:
        Entry or None: The entry, if there is something to do.
    """
    known = manifest.entries.get(path)
    if known is not None and known.output == output and known.is_done(settings):
        return None
    entry = manifest.entries[path] = Entry(path, output)
    entry.size, entry.modified = file_state(path)
    return entry
