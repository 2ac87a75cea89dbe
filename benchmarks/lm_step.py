"""One step of stage 1 and one of stage 2 on the language model, compared with `transformers` + `peft` in PyTorch.

Stage 1: forward, and backward to the soft prompt. Stage 2: forward, backward to AdaLoRA on q and v of every
attention (dropout and orthogonality penalty included), AdamW, rank allocation. Both sides have the same weights, texts,
candidates, lengths and threads, and alternate in one process; peak memory is measured in a separate process for each.

    .venv-parity/bin/python benchmarks/lm_step.py [--quick]
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness
import jax
import jax.numpy as jnp
import lm_step_peer
import numpy as np
import optax

from delrec_jax.config import TuneConfig
from delrec_jax.delrec.labelled_texts import ListedText
from delrec_jax.delrec.tuning_task import ranking_loss
from delrec_jax.language import t5_files
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.mean_scoring import MEAN
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import candidate_cross_entropy
from delrec_jax.language.soft_prompt import slot_ids
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Model
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.training.steps import TrainStep, create_state

LEARNING_RATE, PLANNED = 1e-4, 1000
ADALORA = AdaLoRAConfig(init_rank=12, target_rank=8)
FLAN_SMALL = T5Config(dropout_rate=0.0)
SHAPES = {
    "flan-t5-small": FLAN_SMALL,
    "quick": replace(FLAN_SMALL, d_model=256, d_ff=512, num_layers=2, num_decoder_layers=2),
}


@dataclass(frozen=True)
class Work:
    """What one step reads: texts of at most `tokens` tokens, of which the first `slots` belong to the prompt."""

    shape: str
    batch: int
    tokens: int
    slots: int
    candidates: int
    title: int
    ids: np.ndarray
    prompt: np.ndarray
    items: np.ndarray  # [I, title], tokens of every title
    chosen: np.ndarray  # [batch, candidates], items

    @property
    def config(self) -> T5Config:
        """The model's shape."""
        return SHAPES[self.shape]

    @property
    def sentinel(self) -> int:
        """`<extra_id_0>` of Flan-T5."""
        return 32099


def make_work(shape: str, batch: int, tokens: int) -> Work:
    """Random texts; the shortest is a quarter shorter than the longest, as in a length bucket."""
    generator = np.random.default_rng(0)
    slots, candidates, title = 16, 20, 6
    config = SHAPES[shape]
    ids = generator.integers(2, 32000, (batch, tokens))
    ids[:, :slots] = slot_ids(config.vocab_size, slots)
    for row, length in zip(ids, np.linspace(tokens, 0.75 * tokens, batch), strict=True):
        row[int(length) :] = 0
    return Work(
        shape,
        batch,
        tokens,
        slots,
        candidates,
        title,
        ids.astype(np.int32),
        generator.normal(size=(slots, config.d_model)).astype(np.float32),
        generator.integers(2, 32000, (1682, title)).astype(np.int32),
        generator.integers(0, 1682, (batch, candidates)).astype(np.int32),
    )


def our_stages(work: Work, directory: Path) -> dict[str, Callable[[], Any]]:
    """Compiled steps of this package; each call returns arrays that may still be being computed."""
    config = replace(work.config, adapters=ADALORA)
    params = t5_files.load(directory, config)
    uniform = np.full(work.items.shape, 1 / work.title, np.float32)
    ranker = Ranker(T5Model(config), work.items, uniform, work.sentinel, MEAN, ())
    target = jax.nn.one_hot(np.zeros(work.batch, int), work.candidates)

    def loss(prompt: jax.Array, params: Any, ids: np.ndarray, chosen: np.ndarray) -> jax.Array:
        """Mean cross-entropy of each text's first candidate."""
        scores = ranker.candidate_scores(params, ids, chosen, prompt=prompt)
        return candidate_cross_entropy(scores, target).mean()

    stage1 = jax.jit(jax.value_and_grad(loss))
    tune = TuneConfig(adalora=ADALORA, loss_over="candidates")
    optimizer = with_rank_allocation(optax.adamw(LEARNING_RATE), ADALORA, PLANNED)
    known = np.ones(len(work.items), bool)
    layout = make_layout(MeshConfig(), ranker.model.axes_of)
    gradients = mean_loss_gradients(ranking_loss(ranker, known, tune))
    step = TrainStep(gradients, optimizer, layout)
    adapters = init_adapters(params, ADALORA, jax.random.key(0))
    state = create_state({"adapters": adapters}, optimizer)
    vectors = jax.jit(ranker.item_vectors)(params)
    frozen = {"params": params, "prompt": jnp.asarray(work.prompt), "vectors": vectors}
    batch = ListedText(ids=work.ids, candidates=work.chosen, targets=target)

    def stage2() -> Any:
        """One update of the adapters; the metrics."""
        nonlocal state
        state, metrics = step(state, frozen, batch, jax.random.key(1))
        return metrics

    return {
        "stage1": lambda: stage1(work.prompt, params, work.ids, work.chosen),
        "stage2": stage2,
    }


def stages(side: str, work: Work, directory: Path) -> dict[str, Callable[[], Any]]:
    """The steps of one side by stage; PyTorch is imported only for its own side."""
    if side == "ours":
        return our_stages(work, directory)
    plan = lm_step_peer.Plan(ADALORA, LEARNING_RATE, PLANNED)
    return lm_step_peer.stages(work, plan, directory)


def check_same(ours: dict[str, Callable], peer: dict[str, Callable]) -> dict[str, float]:
    """Checks that both sides compute the same loss and gradient of stage 1, before they are timed."""
    loss, gradient = jax.device_get(ours["stage1"]())
    other_loss, other_gradient = peer["stage1"]()
    np.testing.assert_allclose(loss, other_loss, rtol=1e-4)
    np.testing.assert_allclose(gradient, other_gradient, atol=1e-6)
    return {
        "loss": float(loss),
        "gradient_difference": float(np.abs(gradient - other_gradient).max()),
    }


def peak_memory(side: str, stage: str, arguments: argparse.Namespace, directory: Path) -> float:
    """Peak GiB, beyond its imports, of a fresh process that loads the model and does three steps of one stage."""
    command = [sys.executable, __file__, f"--child={side}/{stage}", f"--directory={directory}"]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("shape", "batch", "tokens")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["peak_gib"]


def child(arguments: argparse.Namespace) -> None:
    side, stage = arguments.child.split("/")
    work = make_work(arguments.shape, arguments.batch, arguments.tokens)
    if side == "peer":
        importlib.import_module("peft")  # and torch with it: imports are not part of the step
    before = harness.resident_gib("VmRSS")
    step = stages(side, work, Path(arguments.directory))[stage]
    for _ in range(3):
        jax.block_until_ready(step())
    print(json.dumps({"peak_gib": harness.resident_gib("VmHWM") - before}))


def measure(arguments: argparse.Namespace, directory: Path) -> None:
    work = make_work(arguments.shape, arguments.batch, arguments.tokens)
    lm_step_peer.save_model(work.config, directory)
    ours, peer = stages("ours", work, directory), stages("peer", work, directory)
    results: dict[str, Any] = {"agreement": check_same(ours, peer), "seconds": {}, "peak_gib": {}}
    lines = []
    for stage in ("stage1", "stage2"):
        cases = {f"ours/{stage}": ours[stage], f"peer/{stage}": peer[stage]}
        seconds = harness.interleave(cases, arguments.rounds, warmup=2)
        middle = harness.medians(seconds)
        results["seconds"] |= seconds
        peaks = {s: peak_memory(s, stage, arguments, directory) for s in ("ours", "peer")}
        results["peak_gib"][stage] = peaks
        for case, values, unit in (
            (stage, {s: middle[f"{s}/{stage}"] for s in ("ours", "peer")}, "s"),
            (f"{stage} peak memory", peaks, "GiB"),
        ):
            lines.append(
                harness.ratio_line(
                    "lm_step", case, ours=values["ours"], peer=values["peer"], unit=unit
                )
            )
    settings = {**vars(arguments), "t5": asdict(work.config), "adalora": asdict(ADALORA)}
    settings = {
        name: value for name, value in settings.items() if name not in ("child", "directory")
    }
    harness.save("lm_step.quick" if arguments.quick else "lm_step", settings, results)
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="flan-t5-small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small shape, few rounds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.batch, arguments.rounds = "quick", 4, 3
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as directory:
        measure(arguments, Path(directory))


if __name__ == "__main__":
    main()
