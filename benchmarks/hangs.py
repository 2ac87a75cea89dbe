"""How long a training that hangs lives on, and what the watchdog and the check for spikes cost per step.

    .venv/bin/python benchmarks/hangs.py [--quick] [--hang_after=60]

Hangs are injected into a training whose steps do almost nothing: a train step, the drawing of a batch, the start of a save, the
writing of a checkpoint in the background, and a second process that is stopped (SIGSTOP). Each is timed from the moment when it
hangs to the end of the process. The costs are the processor time of the same training per step, in interleaved rounds. Writes
`benchmarks/results/hangs.json`; `--quick`: two hangs, few steps.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

from delrec_jax.batches import batch_type

HANGS = ("step", "batch", "save", "write", "process")
AT = 200  # steps done when the next step, batch or save hangs


@batch_type
class Sights:
    """Rows to be close to."""

    y: Any

    @staticmethod
    def numbered(number: int, rows: int) -> "Sights":
        """The batch of this number."""
        return Sights(y=np.ones((rows, 3), np.float32))


def hang_here(note: Path) -> None:
    """Notes the time, and never returns."""
    note.write_text(repr(time.time()))
    threading.Event().wait()


def inject(where: str, note: Path) -> None:
    """Makes something in this process hang from step `AT` on."""
    import orbax.checkpoint as ocp

    from delrec_jax.training.steps import TrainStep

    owner, name, is_late = {
        "step": (TrainStep, "__call__", lambda self, state, *rest: int(state.step) >= AT),
        "batch": (Sights, "numbered", lambda number, *rest: number >= AT),
        "save": (ocp.CheckpointManager, "save", lambda self, step: step >= AT),
        "write": (ocp.CheckpointManager, "_finalize", lambda self, step, *rest: step >= AT),
    }[where]
    before = getattr(owner, name)

    def hanging(*given: Any, **named: Any) -> Any:
        if is_late(*given):
            hang_here(note)
        return before(*given, **named)

    setattr(owner, name, hanging)


def train(
    directory: Path, *, steps: int, every: int, hang_after: float, on_spike: str = ""
) -> None:
    """A training whose steps do almost nothing: what remains is what the loop itself costs."""
    import jax
    import jax.numpy as jnp
    import optax

    from delrec_jax.data.pipeline import batch_iterator
    from delrec_jax.training.gradients import mean_loss_gradients
    from delrec_jax.training.loop import fit
    from delrec_jax.training.loop_config import LoopConfig
    from delrec_jax.training.run import Run
    from delrec_jax.training.sharding import MeshConfig, make_layout, own_share
    from delrec_jax.training.steps import TrainStep, create_state
    from delrec_jax.training.watching import Watch

    def loss(params: Any, frozen: Any, batch: Any, key: Any) -> Any:
        losses = ((params["w"] - batch.y) ** 2).sum(-1)
        return losses, jnp.ones_like(losses), {}

    layout = make_layout(MeshConfig(), lambda path, shape: (None,) * len(shape))
    optimizer = optax.sgd(0.01)
    share = own_share(layout, 2)
    rows = 2 // share[1]
    fit(
        Run(
            name="tiny",
            directory=directory,
            state=create_state({"w": jnp.zeros(3)}, optimizer),
            frozen=jnp.float32(1),
            batches=batch_iterator(lambda number, rng: Sights.numbered(number, rows), seed=0),
            step=TrainStep(mean_loss_gradients(loss), optimizer, layout),
            layout=layout,
            share=share,
            evaluate=lambda params: {"one": 1.0},
            monitor="one",
            select="last",
            config=LoopConfig(
                steps=steps, evaluate_every=every, checkpoint_every=every, on_spike=on_spike
            ),
            key=jax.random.key(0),
            watch=Watch(hang_after=hang_after),
        )
    )


def begin(directory: Path, options: argparse.Namespace, *flags: str) -> tuple[Any, Path]:
    """A training in a process of its own that does not end by itself; and the file with what it says."""
    said = directory.with_suffix(f".said{len(list(directory.parent.glob('*.said*')))}")
    limit = f"--hang_after={options.hang_after}"
    arguments = [sys.executable, __file__, "--train", str(directory), limit, *flags]
    return subprocess.Popen(arguments, stderr=said.open("w")), said


def one_process(room: Path, where: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the injected hang to the end of the process, its status and its last line."""
    note, directory = room / f"{where}.note", room / where
    process, said = begin(directory, options, "--inject", where, "--note", str(note))
    status = process.wait()
    ended = time.time()
    return told(where, ended - float(note.read_text()), status, said, directory)


def two_processes(room: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same, where the second of two processes is stopped."""
    directory = room / "process"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [begin(directory, options, "--meeting", f"{port}:{number}") for number in range(2)]
    (first, said), (second, _) = both
    try:
        while last_row(directory) < AT:
            if any(process.poll() is not None for process, _ in both):
                sys.exit("".join(text.read_text() for _, text in both))
            time.sleep(0.05)
        second.send_signal(signal.SIGSTOP)
        stopped = time.time()
        status = first.wait()
        ended = time.time()
    finally:
        for process, _ in both:
            process.kill()
            process.wait()
    return told("process", ended - stopped, status, said, directory)


def last_row(directory: Path) -> int:
    """The step of the last row of the log."""
    log = directory / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def told(where: str, seconds: float, status: int, said: Path, directory: Path) -> dict[str, Any]:
    """One row of the results."""
    return {
        "hang": where,
        "seconds": round(seconds, 2),
        "status": status,
        "said": said.read_text().strip().splitlines()[-1].replace(str(directory), "RUN"),
        "stacks": sorted(path.name for path in directory.glob("hang*.txt")),
        "last_row": last_row(directory),
    }


def costs(steps: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of processor time per step, by what watches the training."""
    cases = {
        "nothing": (0.0, ""),
        "hang_after": (1800.0, ""),
        "hang_after, on_spike=stop": (1800.0, "stop"),
        "hang_after, on_spike=rollback": (1800.0, "rollback"),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-1, rounds):
        for name, (hang_after, on_spike) in cases.items():
            with tempfile.TemporaryDirectory() as room:
                before = time.process_time()
                train(
                    Path(room), steps=steps, every=10**9, hang_after=hang_after, on_spike=on_spike
                )
                if turn >= 0:
                    spent = (time.process_time() - before) / steps * 1e6
                    found[name].append(round(spent, 2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hang_after", type=float, default=60.0)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--inject", default="")
    parser.add_argument("--note", type=Path)
    parser.add_argument("--meeting", default="")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.train:
        train_here(options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for where in HANGS[:2] if options.quick else HANGS:
            room = Path(folder)
            alone = where != "process"
            rows.append(
                one_process(room, where, options) if alone else two_processes(room, options)
            )
            print(json.dumps(rows[-1]), flush=True)
    spent = costs(*((500, 3) if options.quick else (2000, 5)))
    harness.save(
        "hangs.quick" if options.quick else "hangs",
        {"hang_after": options.hang_after, "at": AT},
        {"hangs": rows, "microseconds_per_step": spent},
    )
    for name, value in harness.medians(spent).items():
        print(f"hangs costs: {name}: {value:.1f} us of processor time per step")


def train_here(options: argparse.Namespace) -> None:
    """What the processes do that hang."""
    from delrec_jax.distributed import DistributedConfig, join
    from delrec_jax.endings import reported

    if options.inject:
        inject(options.inject, options.note)
    with reported():
        if options.meeting:
            port, number = options.meeting.split(":")
            # Not JAX's own heartbeat is timed.
            join(DistributedConfig("on", f"127.0.0.1:{port}", 2, int(number), 100_000))
        train(options.train, steps=10**9, every=50, hang_after=options.hang_after)


if __name__ == "__main__":
    main()
