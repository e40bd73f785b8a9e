"""A training that notes its weights in each process: python ddp_ranks.py FOLDER STEP ARGUMENTS...

At STEP the second process gets a SIGTERM, at 0 none does.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from hggdp_plugin.apps.train import main
from hggdp_plugin.training import run
from hggdp_plugin.training.module import ScoreTraining


def start(folder: Path, stop_at: int, arguments: list[str]) -> int:
    rank = int(os.environ.get("LOCAL_RANK", 0))
    fit, step = run.fit, ScoreTraining.training_step

    def noted(module, config):
        result = fit(module, config)
        torch.save(module.model.state_dict(), folder / f"rank{rank}.pt")
        return result

    def stopped(self, *args):
        if rank == 1 and self.global_step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    run.fit, ScoreTraining.training_step = noted, stopped
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
