"""Pretrained weights made of the tiny run's own language model, and runs that begin with them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from tiny_storefront import CONFIG, FEW_BASELINES, TINY, delrec, open_workspace
from watching import Watch

from delrec_jax.language.t5_files import export_model
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task

EXTRA_ROWS = 28  # as Flan-T5: 32128 rows for 32100 ids

# Short loops; the other controls have their runs in TINY.
_SHORT = (
    *TINY,
    *FEW_BASELINES,
    "--config.distill.loop.steps=3",
    "--config.tune.controls=('random',)",
    "--config.tune.loop.steps=6",
    "--config.tune.loop.evaluate_every=6",
)
FIRST = (
    *_SHORT,
    "--config.lm.verbalizer=first",
    "--config.lm.t5.d_model=24",  # the sizes of pretrained weights are in their own config.json
    "--config.lm.t5.num_layers=3",
)
SEQUENCE = (
    *_SHORT,
    "--config.lm.verbalizer=sequence",
    "--config.tune.loss_over=candidates",
    "--config.tune.anchor=0.0",
    "--config.tune.num_candidates=8",
    "--config.lm.t5.scan_layers=True",
)


def write_pretrained(run: Path, directory: Path, *, extra_rows: int) -> None:
    """Exports the base of a finished run with more rows than its tokenizer has ids (or fewer: a wrong one)."""
    ws = open_workspace(run)
    language = Inputs(ws).language
    config = language.model.config
    rows = config.vocab_size + extra_rows
    table = language.params["shared"]["embedding"]
    noise = np.random.default_rng(0).normal(size=(max(extra_rows, 0), config.d_model))
    noise = noise.astype(np.float32) * np.asarray(table).std()
    params = language.params | {
        "shared": {"embedding": np.concatenate([table, noise])[:rows]},
        "lm_head": {
            "kernel": np.concatenate([language.params["lm_head"]["kernel"].T, noise])[:rows].T
        },
    }
    tokenizer = ws.folder("pretrain") / "tokenizer"
    export_model(params, replace(config, vocab_size=rows), directory, tokenizer_dir=tokenizer)


def copy_beginning(run: Path, workdir: Path) -> None:
    """The stages that no language model touches, for another run of the same corpus."""
    for name in ("data", "teacher"):
        shutil.copytree(run / name, workdir / name)


def watched_run(workdir: Path, *flags: str) -> None:
    """`delrec run`, and beside it what happened in its trainings (`watched.json`)."""
    watch = Watch()
    with mock.patch.object(task, "fit", watch.fit):
        delrec("run", CONFIG, f"--workdir={workdir}", *flags)
    (workdir / "watched.json").write_text(json.dumps(watch.summary()))
