"""Flags of a tiny P2Rec run that begins with the tiny DELRec run's corpus, language model and teacher."""

import shutil
from pathlib import Path

from tiny_storefront import CONFIG, FEW_BASELINES, TINY, delrec

PARSING = (
    "--config.parse.categories=4",
    "--config.parse.valid_users=0.2",
    "--config.parse.batch_size=8",
    "--config.parse.adalora.interval=1",
    "--config.parse.optimizer.learning_rate=0.01",
    "--config.parse.loop.steps=8",
    "--config.parse.loop.evaluate_every=4",
    "--config.augment.way=adapter",
)
P2REC = (
    *TINY,
    *FEW_BASELINES,
    "--config.teacher.gru4rec.width=8",
    "--config.teacher.gru4rec.hidden=8",
    "--config.parse.seeds=2",
    *PARSING,
    "--config.augment.teachers=('sasrec','gru4rec','ease')",
)


def make_p2rec_run(beginning: Path, workdir: Path, *flags: str, stages: tuple[str, ...]) -> None:
    """`delrec run` on a copy of some stages of a finished run."""
    for name in stages:
        shutil.copytree(beginning / name, workdir / name)
    delrec("run", CONFIG, f"--workdir={workdir}", *P2REC, *flags)
