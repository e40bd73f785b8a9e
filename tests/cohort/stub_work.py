"""Work for tests of the scheduling alone; workers import this module from the folder of the tests."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from hggdp_plugin.cohort.work import Plan, Result


@dataclass(frozen=True)
class StubWork:
    """Files say what happens: a number of batches, or one of the words below. A log names the batches done."""

    log: str

    def plan(self, path: str, output: str) -> Plan:
        content = Path(path).read_text()
        if content == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if content == "refused":
            raise ValueError("refused:\nfor a reason")
        if content == "bug":
            raise RuntimeError("a bug")
        return Plan("digest", int(content), 0, range(int(content)))

    def batch(self, path: str, output: str, start: int) -> int:
        time.sleep(0.05)
        with open(self.log, "a") as file:
            file.write(f"{path} {start} {os.getpid()}\n")
        return 1

    def finish(self, path: str, output: str, sha256: str) -> Result:
        Path(output).write_text(sha256)
        return Result(int(Path(path).read_text()))
