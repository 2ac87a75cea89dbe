"""The flags of a tiny storefront run, and its workdir opened as the commands open it."""

import json
import sys
from pathlib import Path
from unittest import mock

from ml_collections import ConfigDict

from delrec_jax.cli import main
from delrec_jax.config import from_config
from delrec_jax.workdir import kept_files
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.workspace import Workspace

ROOT = Path(__file__).parents[1]
CONFIG = f"--config={ROOT / 'configs' / 'storefront.py'}"

# One kind of pre-training texts: each is a compiled shape. The run of test_frozen has others.
TINY = (
    "--config.data.storefront.genres=3",
    "--config.data.storefront.series=2",
    "--config.data.storefront.volumes=6",
    "--config.data.storefront.users=48",
    "--config.candidates.num=8",
    "--config.candidates.rerank=8",
    "--config.prompts.max_tokens=96",
    "--config.prompts.max_history=2",
    "--config.lm.vocab_size=400",
    "--config.lm.t5.d_model=16",
    "--config.lm.t5.d_kv=8",
    "--config.lm.t5.num_heads=2",
    "--config.lm.t5.d_ff=16",
    "--config.lm.t5.num_layers=1",
    "--config.pretrain.loop.steps=6",
    "--config.pretrain.loop.evaluate_every=3",
    "--config.pretrain.loop.checkpoint_every=4",
    "--config.pretrain.optimizer.warmup_steps=2",
    "--config.pretrain.text.batch_tokens=512",
    "--config.pretrain.text.short_first=0",
    "--config.pretrain.text.short=0.0",
    "--config.pretrain.text.several=0.0",
    "--config.pretrain.text.attributes=0.0",
    "--config.pretrain.gate.attributes=0.0",
    "--config.pretrain.gate.next_in_series=0.0",
    "--config.teacher.sasrec.width=16",
    "--config.teacher.sasrec.layers=1",
    "--config.teacher.batch_size=8",
    "--config.teacher.loop.steps=8",
    "--config.teacher.loop.evaluate_every=4",
    "--config.teacher.loop.checkpoint_every=5",
    "--config.distill.num_candidates=8",
    "--config.distill.top_h=4",
    "--config.distill.length=3",
    "--config.distill.batch_size=16",
    "--config.distill.loop.steps=6",
    "--config.distill.loop.evaluate_every=3",
    "--config.distill.loop.checkpoint_every=4",
    "--config.tune.loop.steps=8",
    "--config.tune.loop.evaluate_every=4",
    "--config.tune.loop.checkpoint_every=5",
    "--config.tune.adalora.interval=1",
    "--config.tune.batch_size=16",
)


# Two baselines and two hybrids; TINY has all.
FEW_BASELINES = (
    "--config.baselines.names=('popularity', 'tfidf')",
    "--config.baselines.hybrids=('teacher+tfidf', 'delrec+teacher')",
)


def delrec(*arguments: str) -> None:
    """A command as its console script gives it: `ml_collections` reads overrides from `sys.argv`."""
    with mock.patch.object(sys, "argv", ["delrec", *arguments]):
        main()


def mark_again(workdir: Path, stage: str) -> None:
    """Makes a finished stage's marker that of its files as they are now, as if it had left them so."""
    folder = open_workspace(workdir).folder(stage)
    marker = json.loads((folder / kept_files.MARKER).read_text())
    del marker["seal"]
    marker["files"] = kept_files.hashes(folder)
    (folder / kept_files.MARKER).write_text(json.dumps(kept_files.sealed(marker)))


def open_workspace(workdir: Path) -> Workspace:
    """A workdir with the settings that it was made with."""
    settings = ConfigDict(read_json(workdir / "config.json"), convert_dict=True)
    return Workspace(workdir, from_config(settings))
