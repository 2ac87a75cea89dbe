"""One step of each stage with a sentence encoder, and ranking by it, compared with `transformers` + `peft` in PyTorch.

    .venv-parity/bin/python benchmarks/encoder_step.py [--quick] [--compile]

The shape of all-MiniLM-L6-v2 with random weights, float32, no dropout, the settings of configs/minilm/office.py:

    stage1              gradient to the prompt and two scalars of a target distribution over the catalogue; clipping, Adam
    stage2-all-blocks   one label over the catalogue; LoRA on q and v of all blocks, and the map; clipping, AdamW
    stage2-last-blocks  the same with LoRA on the last three blocks (the default of that config), where backward passes end
    ranking             scores of the catalogue for many users, prompt and adapters included, without gradients

Our side runs the stages' own tasks (`Task.step`, `Task.scoring`). Both sides have the same weights, texts, item vectors and
threads, alternate in one process, and are timed only after losses and gradients have been found to agree. Peak memory is
measured in a separate process for each; ours includes the compiler. encoder_step_peer.py says what the peer does. A ratio
above 1 of speeds means that we are faster, one of memory that we need more.

Nothing else may run: on a busy machine PyTorch's threads wait for each other, and the peer reads many times too slow. Under
`taskset -c 0` both sides have one thread, which avoids that.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import harness
import jax
import jax.numpy as jnp
import numpy as np
from encoder_step_work import CLS, MASK, SEP, SHAPES, Work, make_work
from flax import traverse_util

from delrec_jax.config import Experiment, from_config, read_config
from delrec_jax.delrec.distilling_task import distilling_task
from delrec_jax.delrec.labelled_texts import LabelledText
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_start import PromptStart
from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.delrec.tuning_task import tuning_task
from delrec_jax.language import bert_files
from delrec_jax.language.bert_model import BertModel
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.training.steps import create_state
from delrec_jax.training.task import Task, shapes_of
from delrec_jax.workdir.language_scorer import AskedTexts

NAME = "encoder_step"
CONFIG = "configs/minilm/office.py"
CASES = ("stage1", "stage2-all-blocks", "stage2-last-blocks", "ranking")
TOLERANCE = 1e-4  # of losses and scores, and of gradients relative to the largest entry


class Case(NamedTuple):
    """What is timed, and what must agree before: named arrays. `check` is called first, `run` changes the parameters."""

    run: Callable[[], Any]
    check: Callable[[], dict[str, Any]]


def experiment_of(case: str) -> Experiment:
    """The config of the case; stage 1 has one task only, so that its loss is the mean over all texts."""
    config = read_config(Path(__file__).parents[1] / CONFIG)
    config.distill.tasks.ta.update(share=0.0, weight=0.0)
    if case == "stage2-all-blocks":
        config.tune.adalora.targets = ("q", "v")
    return from_config(config)


def adapted_blocks(case: str, work: Work) -> range:
    """The numbers of the blocks with adapters."""
    layers = work.shape.model.num_hidden_layers
    return range(layers) if case == "stage2-all-blocks" else range(layers // 2, layers)


def our_case(name: str, work: Work, directory: Path) -> Case:
    """The package's own task on the work; nothing is compiled yet."""
    experiment = experiment_of(name)
    model = BertModel(work.shape.model).with_adapters(experiment.tune.adalora)
    verbalizer = find_verbalizer("embedding").configured(experiment.lm, (CLS,), (SEP,))
    uniform = (work.titles > 0) / (work.titles > 0).sum(1, keepdims=True)
    ranker = Ranker(model, work.titles, uniform.astype(np.float32), MASK, verbalizer, ())
    layout = make_layout(MeshConfig(), model.axes_of)
    params = bert_files.load(directory, work.shape.model)
    frozen = {"params": params, "vectors": jnp.asarray(work.vectors)}
    if name == "stage1":
        start = PromptStart(experiment)
        task = distilling_task(experiment, ranker, layout, shapes_of(frozen), start, work.known)
        return _our_stage1(task, work, frozen, experiment)
    task = tuning_task(experiment, ranker, layout, shapes_of(frozen), known=work.known)
    frozen["prompt"] = jnp.asarray(work.prompt)
    trained = task.start(frozen, 0)
    trained["adapters"] = _given_adapters(trained["adapters"], work, adapted_blocks(name, work))
    if name == "ranking":
        return _our_ranking(task, work, {**frozen, **trained})
    texts = work.training
    batch = LabelledText(ids=texts.ids, owners=texts.owners, label=work.labels)
    return _training(task, trained, frozen, batch)


def _our_stage1(task: Task, work: Work, frozen: Any, experiment: Experiment) -> Case:
    trained = {**task.start(frozen, 0), "prompt": jnp.asarray(work.prompt)}
    names = [one.name for one in prompt_tasks(experiment)]
    batch = PromptExample(
        ids=work.training.ids,
        owners=work.training.owners,
        candidates=work.candidates,
        targets=work.targets,
        task=np.full(len(work.labels), names.index("rps"), np.int32),
    )
    return _training(task, trained, frozen, batch)


def _our_ranking(task: Task, work: Work, held: Any) -> Case:
    assert task.scoring is not None
    texts = AskedTexts(ids=work.asked.ids, owners=work.asked.owners)
    step = task.scoring.step

    def scores() -> np.ndarray:
        """Scores of the catalogue for all users, on the host."""
        return step.in_batches(held, texts, work.shape.at_once)

    return Case(scores, lambda: {"scores": scores()})


def _given_adapters(tree: Any, work: Work, blocks: range) -> Any:
    """The task's own tree with the values of the work, whose E is not 0: so that the check sees the adapters."""
    given = {
        ("encoder", f"block_{block}", "SelfAttention", name, part): jnp.asarray(value)
        for block in blocks
        for name in "qv"
        for part, value in work.adapter(block, name).items()
    }
    flat = traverse_util.flatten_dict(tree)
    assert shapes_of(flat) == shapes_of(given), "the config's adapters are not those of the work"
    return traverse_util.unflatten_dict(given)


def _training(task: Task, trained: Any, frozen: Any, batch: Any) -> Case:
    """One update per run."""
    state, key = create_state(trained, task.optimizer), jax.random.key(1)

    def update() -> Any:
        """One update of what trains; the metrics."""
        nonlocal state
        state, metrics = task.step(state, frozen, batch, key)
        return metrics

    def check() -> dict[str, Any]:
        """Loss and gradients; A and B also have those of the penalty, which the peer has not, but E has not."""
        gradients, metrics = jax.jit(task.gradients)(trained, frozen, batch, key)
        flat = traverse_util.flatten_dict(gradients)
        found = {"loss": metrics["loss"]}
        found |= {path[-1]: leaf for path, leaf in flat.items() if path[0] in ("prompt", "readout")}
        if "adapters" in gradients:
            found["E"] = jnp.stack([flat[path] for path in sorted(flat) if path[-1] == "E"])
        return found

    return Case(update, check)


def make_case(side: str, name: str, work: Work, arguments: argparse.Namespace) -> Case:
    """The case of one side; PyTorch is imported only for its own."""
    directory = Path(arguments.directory)
    if side == "ours":
        return our_case(name, work, directory)
    peer = importlib.import_module("encoder_step_peer")
    options = {"blocks": adapted_blocks(name, work), "compiled": arguments.compile}
    return Case(*peer.case(name, work, directory, experiment_of(name), **options))


def check_same(name: str, ours: Case, peer: Case) -> dict[str, float]:
    """Largest differences of losses, scores and gradients; those of gradients relative to their largest entries.

    Raises:
      AssertionError: the sides do not compute the same, so comparing their times would mean nothing.
    """
    mine, theirs = jax.device_get(ours.check()), peer.check()
    assert mine.keys() == theirs.keys(), (mine.keys(), theirs.keys())
    found = {}
    for key, value in theirs.items():
        scale = 1.0 if key in ("loss", "scores") else float(np.abs(value).max())
        found[key] = float(np.abs(mine[key] - value).max()) / scale
        assert scale > 0 and found[key] < TOLERANCE, f"{name}, {key}: {found[key]:.2g} apart"
    return {f"{key} difference": value for key, value in found.items()} | (
        {"loss": float(mine["loss"])} if "loss" in mine else {}
    )


def peak_memory(side: str, name: str, arguments: argparse.Namespace) -> float:
    """Peak GiB, beyond its imports, of a fresh process that loads the model and runs one case three times."""
    command = [sys.executable, __file__, f"--child={side}/{name}"]
    command += [f"--{key}={getattr(arguments, key)}" for key in ("shape", "directory")]
    command += ["--compile"] * arguments.compile
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["peak_gib"]


def child(arguments: argparse.Namespace) -> None:
    side, name = arguments.child.split("/")
    work = make_work(SHAPES[arguments.shape])
    if side == "peer":
        importlib.import_module("peft")  # and torch with it: imports are not part of the step
    before = harness.resident_gib("VmRSS")
    case = make_case(side, name, work, arguments)
    for _ in range(3):
        jax.block_until_ready(case.run())
    print(json.dumps({"peak_gib": harness.resident_gib("VmHWM") - before}))


def measure(arguments: argparse.Namespace) -> None:
    shape, load = SHAPES[arguments.shape], round(os.getloadavg()[0], 2)
    work, peer = make_work(shape), importlib.import_module("encoder_step_peer")
    peer.save_model(shape.model, Path(arguments.directory))
    results, lines = {}, []
    for name in CASES:
        sides = {side: make_case(side, name, work, arguments) for side in ("ours", "peer")}
        agreement = check_same(name, sides["ours"], sides["peer"])
        cases = {side: case.run for side, case in sides.items()}
        seconds = harness.interleave(cases, arguments.rounds, warmup=2)
        texts, unit = (shape.users, "users/s") if name == "ranking" else (shape.batch, "texts/s")
        rates = {side: texts / middle for side, middle in harness.medians(seconds).items()}
        results[name] = {"agreement": agreement, unit: rates, "seconds": seconds}
        lines.append(harness.ratio_line(NAME, name, **rates, unit=unit))
        del sides, cases  # the next case should find the memory free
        gc.collect()
        if not arguments.no_memory:
            peaks = {side: peak_memory(side, name, arguments) for side in rates}
            results[name]["peak_gib"] = peaks
            lines.append(harness.ratio_line(NAME, f"{name} peak memory", **peaks, unit="GiB"))
    settings = {key: getattr(arguments, key) for key in ("shape", "rounds", "compile")}
    settings |= {"config": CONFIG, "threads": peer.threads(), "load_before": load, **asdict(shape)}
    file = NAME + "_compiled" * arguments.compile + ".quick" * arguments.quick
    harness.save(file, settings, results)
    print(
        f"{NAME}: {peer.threads()} threads, medians of {arguments.rounds} rounds, load {load} before"
    )
    print(*lines, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="MiniLM-L6")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-memory", action="store_true", help="measure no peak memory")
    parser.add_argument("--compile", action="store_true", help="the peer with torch.compile")
    parser.add_argument("--quick", action="store_true", help="a small shape, few rounds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.rounds = "quick", 3
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as directory:
        arguments.directory = directory
        measure(arguments)


if __name__ == "__main__":
    main()
