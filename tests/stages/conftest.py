"""One tiny storefront run, shared by the tests of this folder: every stage, a few steps each."""

import importlib.util
from pathlib import Path

import pytest

from delrec_jax.cli import main

ROOT = Path(__file__).parents[2]

TINY = [
    "--config.data.storefront.genres=3",
    "--config.data.storefront.series=2",
    "--config.data.storefront.volumes=6",
    "--config.data.storefront.users=48",
    "--config.candidates.num=8",
    "--config.candidates.rerank=8",
    "--config.prompts.max_tokens=128",
    "--config.lm.t5.d_model=16",
    "--config.lm.t5.d_kv=8",
    "--config.lm.t5.num_heads=2",
    "--config.lm.t5.d_ff=16",
    "--config.lm.t5.num_layers=1",
    "--config.pretrain.loop.steps=6",
    "--config.pretrain.loop.evaluate_every=3",
    "--config.pretrain.loop.checkpoint_every=2",
    "--config.pretrain.optimizer.warmup_steps=2",
    "--config.pretrain.text.batch_tokens=512",
    "--config.pretrain.text.short_first=2",
    "--config.pretrain.gate.attributes=0.0",
    "--config.pretrain.gate.next_in_series=0.0",
    "--config.teacher.loop.steps=8",
    "--config.teacher.loop.evaluate_every=4",
    "--config.teacher.loop.checkpoint_every=3",
    "--config.distill.num_candidates=8",
    "--config.distill.top_h=4",
    "--config.distill.length=3",
    "--config.distill.batch_size=16",
    "--config.distill.loop.steps=6",
    "--config.distill.loop.evaluate_every=3",
    "--config.distill.loop.checkpoint_every=2",
    "--config.tune.loop.steps=8",
    "--config.tune.loop.evaluate_every=4",
    "--config.tune.loop.checkpoint_every=3",
    "--config.tune.adalora.interval=1",
    "--config.tune.batch_size=16",
    "--config.tune.few_users=8",
]


def config_flag() -> str:
    return f"--config={ROOT / 'configs' / 'storefront.py'}"


def load_config(name: str):
    spec = importlib.util.spec_from_file_location(f"config_{name}", ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The workdir of a finished tiny run."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    main(["run", config_flag(), f"--workdir={workdir}", *TINY])
    return workdir
