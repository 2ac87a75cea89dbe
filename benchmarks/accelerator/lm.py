"""Train steps of stage 1 (`distill`) and stage 2 (`tune`) at Flan-T5's shapes with random weights, by kernel and `remat`.

The steps are those that `delrec plan` compiles. Every case is a process of its own, so that its peak memory is its own; it
traces while others run, then waits for its turn to compile and to be timed. Useful FLOPs of a step over b texts of T tokens,
with L blocks in the encoder and l in the decoder (which reads two tokens):

    dense      2 b T L (4 D H K + 3 D F)      attention  4 b T^2 L H K      cross      8 b T l H D
    useful   = 2 dense + 3 attention + 3 cross

This counts the forward pass and the backward pass to activations (weights are frozen and have no gradients), and nothing for
`remat`; adapters, head and the decoder's few tokens are left out. MFU = useful / (time x the card's dense bf16 peak).
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numerics
import numpy as np
from measuring import Record, brief, experiment_of, random_weights, zeros

from delrec_jax.language import attention
from delrec_jax.planning.memory import stage_memory
from delrec_jax.planning.shapes import Assumed, planned_model
from delrec_jax.planning.shardings import sharding_rows
from delrec_jax.planning.tasks import planned_tasks

ASSUMED = Assumed(items=1682, title_tokens=12)
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 FLOP/s, by the data sheet
_AHEAD = 8  # how many cases are started at a time, to trace while one is timed


class Case(NamedTuple):
    """What one process measures."""

    shape: str
    stage: str
    kernel: str
    remat: str

    @property
    def name(self) -> str:
        """Its name in the record."""
        return f"{self.shape} {self.stage} {self.kernel}{'' if self.remat == 'none' else f'+{self.remat}'}"


def cases(tiny: bool) -> list[Case]:
    """The cases, most important first: the last ones may not get their turn."""
    if tiny:
        kernels = list(numerics.KERNELS) if jax.default_backend() == "gpu" else ["xla"]
        return [Case("tiny", "distill", kernel, "full") for kernel in kernels]
    plain, fused = numerics.KERNELS
    found = [
        Case("xl", stage, kernel, remat)
        for kernel, remat in ((plain, "full"), (fused, "dots"), (fused, "none"), (fused, "full"))
        for stage in ("distill", "tune")
    ]
    found += [Case("xl", "distill", plain, remat) for remat in ("dots", "none")]
    found += [
        Case(shape, stage, kernel, remat)
        for kernel, remat in ((plain, "none"), (fused, "none"), (fused, "dots"), (plain, "full"))
        for shape in ("small", "base")
        for stage in ("distill", "tune")
    ]
    return found


def run(record: Record, tiny: bool) -> None:
    """Starts the cases, some in advance, and gives each its turn."""
    with tempfile.TemporaryDirectory() as cache:
        waiting = [case for case in cases(tiny) if record.wants(case.name)]
        started: list[tuple[Case, subprocess.Popen]] = []
        while waiting or started:
            while waiting and len(started) < _AHEAD:
                started.append((case := waiting.pop(0), _start(case, cache)))
            case, process = started.pop(0)
            try:
                record.measure(case.name, _turn, process, record.left)
            finally:
                process.kill()
                process.wait()


def _start(case: Case, cache: str) -> subprocess.Popen:
    """Starts a case; cases share autotuned choices through the cache, so the first one compiles longest."""
    settings = {"JAX_COMPILATION_CACHE_DIR": cache, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(case)],
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _turn(process: subprocess.Popen, seconds: float) -> dict[str, Any]:
    """Lets a case compile and run; returns its answer."""
    end = time.monotonic() + seconds
    process.stdin.write("go\n")
    process.stdin.flush()
    if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    return json.loads(process.stdout.readline() or '{"error": "the process ended without a word"}')


def child(case: Case) -> dict[str, Any]:
    """Traces, waits for its turn, compiles, and measures."""
    experiment = experiment_of_case(case)
    planned = next(
        found
        for found in planned_tasks(experiment, jax.devices()[:1], ASSUMED)
        if found.stage == case.stage
    )
    with _kernel(case.kernel):
        lowered = planned.lower()
    sys.stdin.readline()
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    found = _timed(compiled, planned, tiny=case.shape == "tiny")
    memory = stage_memory(experiment, planned, sharding_rows(planned), ASSUMED)
    shape, device = planned_model(experiment)[0].config, jax.devices()[0].device_kind
    return {
        **found,
        "compile seconds": round(seconds, 1),
        **rates(shape, *planned.batch.ids.shape, ms=found["step ms"], device=device),
        "compiler's temporaries, GiB": gib(compiled.memory_analysis().temp_size_in_bytes),
        "plan's estimate of a step, GiB": gib(memory.resident + memory.estimated.step),
    }


def experiment_of_case(case: Case) -> Any:
    """The experiment whose stages a case measures."""
    return experiment_of("delrec/ml100k_flan_t5_xl.py", lambda config: _change(config, case))


def _change(config: Any, case: Case) -> None:
    """The settings that all records of this benchmark were made with, and the case's own."""
    config.prompts.max_tokens, config.lm.verbalizer = 512, "mean"
    config.distill.batch_size = config.tune.batch_size = 32
    config.distill.weighting = "fixed"
    config.tune.adalora.update(init_rank=12, target_rank=8)
    config.lm.t5.remat, config.lm.t5.attention = case.remat, case.kernel
    config.lm.t5.scan_layers = case.shape in ("xl", "tiny")
    config.lm.weights = f"google/flan-t5-{case.shape}"
    if case.shape == "tiny":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 2, "num_layers": 2}
        config.lm.t5.update(**sizes, num_decoder_layers=1)
        config.lm.weights = ""
        config.prompts.max_tokens, config.distill.length = 64, 4
        config.distill.batch_size = config.tune.batch_size = 4


@contextlib.contextmanager
def _kernel(name: str) -> Iterator[None]:
    """Lets the encoder of planned steps, which always attend by XLA, attend by another kernel, as `lm.t5.attention` would."""
    plain, chosen = attention.attend_by_xla, numerics.KERNELS[name]

    def attend(q, k, v, bias, mask):
        return (chosen if mask.shape[-2] == 1 else plain)(q, k, v, bias, mask)

    attention.attend_by_xla = attend
    try:
        yield
    finally:
        attention.attend_by_xla = plain


def _timed(compiled: Any, planned: Any, *, tiny: bool) -> dict[str, Any]:
    """Milliseconds per step (median over rounds of steps dispatched without waiting), memory, and the first loss."""
    frozen, params = random_weights(planned.frozen), random_weights(planned.state.params)
    state = planned.state.replace(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=zeros(planned.state.opt_state)
    )
    batch = jax.device_put(_texts(planned), planned.layout.batch)
    key, first = jax.random.key(1), None
    start, rounds = time.perf_counter(), []
    for turn in range(3 if tiny else 6):
        steps = 1 if turn == 0 else 3
        began = time.perf_counter()
        for _ in range(steps):
            state, metrics = compiled(state, frozen, batch, key)
            first = first or {name: float(value) for name, value in metrics.items()}
        jax.block_until_ready(metrics)
        rounds.append((time.perf_counter() - began) / steps * 1e3)
        if time.perf_counter() - start > 5:
            break
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "step ms": float(np.median(rounds[1:])),
        "rounds": [round(ms, 3) for ms in rounds],
        "first": first,
        "peak memory, GiB": gib(stats.get("peak_bytes_in_use", 0)),
    }


def _texts(planned: Any) -> Any:
    """A batch of texts that begin with the soft prompt's slots, the shortest a quarter shorter than the longest."""
    random, batch = np.random.default_rng(0), dict[str, np.ndarray]()
    words = planned.frozen["params"]["shared"]["embedding"].shape[0]
    held = planned.frozen | (planned.state.params if planned.stage == "distill" else {})
    slots = held["prompt"].shape[0]
    for field in fields(planned.batch):
        name, leaf = field.name, getattr(planned.batch, field.name)
        if leaf is None:  # what these stages do not read
            continue
        if name == "ids":
            rows, tokens = leaf.shape
            ids = random.integers(2, words, leaf.shape)
            ids[:, :slots] = words + np.arange(slots)
            ends = np.linspace(tokens, 0.75 * tokens, rows).astype(int)
            batch[name] = np.where(np.arange(tokens) < ends[:, None], ids, 0)
        elif name == "targets":
            batch[name] = np.full(leaf.shape, 1 / leaf.shape[-1])
        else:
            batch[name] = random.integers(0, 2 if name == "task" else ASSUMED.items, leaf.shape)
        batch[name] = batch[name].astype(leaf.dtype)
    return type(planned.batch)(**batch)


def rates(shape: Any, rows: int, tokens: int, *, ms: float, device: str) -> dict[str, Any]:
    """Useful work of one step, tokens per second, and MFU where the card's peak is known."""
    useful = useful_flops(shape, rows, tokens)
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    return {
        "useful TFLOP": useful / 1e12,
        "tokens/s": rows * tokens / ms * 1e3,
        "MFU": useful / ms * 1e3 / peak if peak else None,
    }


def useful_flops(shape: Any, rows: int, tokens: int) -> float:
    """Useful FLOPs of one step, by the formula at the top of this file."""
    inner = shape.num_heads * shape.d_kv
    blocks = shape.num_layers * (4 * shape.d_model * inner + 3 * shape.d_model * shape.d_ff)
    dense = 2 * rows * tokens * blocks
    attending = 4 * rows * tokens**2 * shape.num_layers * inner
    cross = 8 * rows * tokens * shape.num_decoder_layers * shape.num_heads * shape.d_model
    return 2.0 * dense + 3.0 * attending + 3.0 * cross


def gib(count: float) -> float:
    """Bytes in GiB."""
    return round(count / 2**30, 2)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        answer = child(Case(*json.loads(sys.argv[1])))
    except Exception as error:  # the parent records it
        answer = {"error": brief(error)}
    print(json.dumps(answer), flush=True)
