"""Weights & Biases: one run per workdir, with all of its training runs.

W&B's own environment variables say where and how: `WANDB_PROJECT` (`delrec-jax`), `WANDB_ENTITY`, `WANDB_DIR`, `WANDB_MODE`
(`offline` writes files for `wandb sync`; each command on the workdir then leaves a folder of its own, all with the same run
id). Metrics are called `TRAINING/METRIC`, and are drawn over `TRAINING/step`.
"""

import os
from collections.abc import Mapping
from typing import Any

from delrec_jax.training.tracking.remote import PROJECT, Opening


class WandbRun:
    """A `RemoteRun` of Weights & Biases."""

    def __init__(self, run: Any):
        """Takes what `wandb.init` returns."""
        self._run, self._defined = run, set[str]()

    @property
    def id(self) -> str:
        """W&B's id of the run."""
        found: str = self._run.id
        return found

    def log(self, training: str, step: int, values: Mapping[str, float], *, number: int) -> None:
        """Logs the numbers as `TRAINING/METRIC`; W&B's own step is the number of the row."""
        over = f"{training}/step"
        named = {f"{training}/{name}": value for name, value in values.items()}
        if over not in self._defined:
            self._run.define_metric(over, hidden=True)
        for name in named.keys() - self._defined:
            self._run.define_metric(name, step_metric=over)
        self._defined |= {over, *named}
        # Committed at once: otherwise W&B keeps a row until the next one, and a kill loses it.
        self._run.log({over: step, **named}, step=number, commit=True)

    def results(self, values: Mapping[str, float], *, number: int) -> None:
        """Sets the results in the run's summary as `results/SYSTEM/METRIC`."""
        self._run.summary.update({f"results/{name}": value for name, value in values.items()})

    def close(self, *, finished: bool) -> None:
        """Ends the run with W&B's exit code for success or failure."""
        self._run.finish(exit_code=0 if finished else 1)


def open_run(opening: Opening) -> WandbRun:
    """Goes on with a run, or makes one with the workdir's name and settings."""
    import wandb

    return WandbRun(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=opening.name,
            id=opening.id or None,
            resume="allow" if opening.id else None,
            config=dict(opening.settings),
            settings=wandb.Settings(console="off", quiet=True),
        )
    )
