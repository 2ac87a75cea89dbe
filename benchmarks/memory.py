"""The most memory that each stage of a run takes, by the number of users and of items; and what it would take at larger sizes.

    .venv/bin/python benchmarks/memory.py [--quick] [--sizes=25000x20000,50000x20000,...] [--at=1000000x200000]

For each size USERSxITEMS, files of interactions.csv and items.csv are made (10 interactions per user, items by Zipf's law),
and DELRec's stages run one after another, each in a process of its own whose largest resident memory the system tells. The
language model is small and trains for a few steps: what grows with users and items is measured, and weights, gradients and
activations, which do not, are what `delrec plan` adds up. For each stage, bytes = a + b users + c items is fitted by least
squares without negative parts, and its value at `--at` is printed with b and c: an extrapolation, with the largest relative
error of the fit at the sizes measured. Writes `benchmarks/results/memory.json`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
from scipy.optimize import nnls

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "pretrain", "teach", "fit", "distill", "tune", "evaluate", "report")
SIZES = "25000x20000,50000x20000,100000x20000,50000x5000,50000x10000"
AT = "1000000x200000"
PER_USER = 10
EXPONENT = 0.9
WORDS = 400  # of which titles are made
SMALL = (
    "--config.data.corpus=csv",
    "--config.data.k_core=0",
    "--config.prompts.max_tokens=96",
    "--config.prompts.max_history=5",
    "--config.lm.vocab_size=800",
    "--config.lm.t5.d_model=32",
    "--config.lm.t5.d_kv=16",
    "--config.lm.t5.num_heads=2",
    "--config.lm.t5.d_ff=32",
    "--config.lm.t5.num_layers=1",
    "--config.pretrain.gate.next_item=0.0",
    "--config.distill.length=4",
    *(f"--config.{stage}.loop.steps=2" for stage in ("pretrain", "teacher", "distill")),
    *(
        f"--config.{stage}.optimizer.warmup_steps=0"
        for stage in ("pretrain", "teacher", "distill", "tune")
    ),
    "--config.tune.loop.steps=8",
    "--config.tune.adalora.interval=1",
    "--config.tune.controls=()",
    "--config.distill.controls=()",
    "--config.baselines.names=('popularity','markov','tfidf')",
    "--config.baselines.hybrids=('teacher+tfidf',)",
)


def generate(folder: Path, users: int, items: int) -> None:
    """Writes a pair of CSV files whose users have distinct items."""
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(WORDS)]
    titles = rng.integers(0, WORDS, (items, 3))
    rows = [
        f"i{item},{' '.join(words[word] for word in title)} {item}"
        for item, title in enumerate(titles)
    ]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *rows, ""]))
    weights = np.cumsum(np.arange(1, items + 1) ** -EXPONENT)
    drawn = np.searchsorted(weights / weights[-1], rng.random((users, 4 * PER_USER)))
    with (folder / "interactions.csv").open("w") as file:
        file.write("user_id,item_id,timestamp\n")
        for user, row in enumerate(np.minimum(drawn, items - 1)):
            for place, item in enumerate(list(dict.fromkeys(row.tolist()))[:PER_USER]):
                file.write(f"u{user},i{item},{1_500_000_000 + 86_400 * place + user % 86_400}\n")


def peak(words: list[str], log: Path) -> int:
    """Bytes of the largest resident memory of a command; ends this script if it fails."""
    with log.open("a") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(
            f"{' '.join(words)}: status {os.waitstatus_to_exitcode(status)}\n{log.read_text()[-2000:]}"
        )
    return used.ru_maxrss * 1024  # kilobytes on Linux


def measured(users: int, items: int) -> dict[str, Any]:
    """The stages of one run, in bytes by stage."""
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        generate(room, users, items)
        console = str(Path(sys.executable).with_name("delrec"))
        config = (f"--config={ROOT / 'configs' / 'ml100k_mini.py'}", f"--config.data.path={room}")
        found = {}
        for stage in STAGES:
            words = [console, stage, *config, f"--workdir={room / 'run'}", *SMALL]
            found[stage] = peak(words, room / "log")
            print(f"{users}x{items} {stage}: {found[stage] / 2**20:.0f} MiB", flush=True)
    return {"users": users, "items": items, "bytes": found}


def fitted(rows: list[dict[str, Any]], stage: str, at: tuple[int, int]) -> dict[str, float]:
    """Bytes at another size, per user and per item, and how far off the fit is where it was measured."""
    sizes = np.array([[1.0, row["users"], row["items"]] for row in rows])
    measures = np.array([float(row["bytes"][stage]) for row in rows])
    scale = sizes.max(0)
    parts, _ = nnls(sizes / scale, measures)
    parts = parts / scale
    off = np.abs(sizes @ parts - measures) / measures
    return {
        "constant": parts[0],
        "per_user": parts[1],
        "per_item": parts[2],
        "at": float(np.array([1.0, *at]) @ parts),
        "largest_error": float(off.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three small sizes")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--at", default=AT)
    options = parser.parse_args()
    sizes = "1000x500,2000x500,1000x1000" if options.quick else options.sizes
    rows = [measured(*map(int, size.split("x"))) for size in sizes.split(",")]
    users, items = map(int, options.at.split("x"))
    fits = {stage: fitted(rows, stage, (users, items)) for stage in STAGES}
    harness.save(
        "memory.quick" if options.quick else "memory",
        {"flags": SMALL, "interactions_per_user": PER_USER, "at": [users, items]},
        {"rows": rows, "fits": fits},
    )
    for stage, fit in fits.items():
        print(
            f"memory {stage}: {fit['at'] / 2**30:.1f} GiB at {users} users and {items} items "
            f"({fit['per_user']:.0f} bytes per user, {fit['per_item']:.0f} per item, fit within {fit['largest_error']:.0%})"
        )


if __name__ == "__main__":
    main()
