"""How far apart are two runs of one config: the same command again, on another number of cores, on another processor?

    .venv/bin/python benchmarks/determinism.py [--only NAME NAME] [--room=DIR [--as_they_are]]

A shortened storefront run (every stage) is made once on two cores, and then once for each variant. Each is compared with the
first: how many of the files that it leaves behind have other bytes (`leftovers.digests`), and how far losses and the metrics of
`report/metrics.json` are apart. Writes `results/measured/determinism.json`. With `--room`, workdirs in that folder are used
again, and those that are not finished go on; with `--as_they_are` they are compared as far as they came.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import harness
from leftovers import differing, digests

NAME = "determinism"
ROOT = Path(__file__).parents[1]
SHORTENED = (
    "--config.data.storefront.users=200",
    "--config.pretrain.loop.steps=100",
    "--config.pretrain.loop.evaluate_every=50",
    "--config.pretrain.loop.checkpoint_every=20",
    "--config.pretrain.gate.attributes=0.0",
    "--config.pretrain.gate.next_in_series=0.0",
    "--config.teacher.loop.steps=100",
    "--config.teacher.loop.evaluate_every=50",
    "--config.teacher.loop.checkpoint_every=20",
    "--config.distill.loop.steps=40",
    "--config.distill.loop.evaluate_every=30",
    "--config.distill.loop.checkpoint_every=10",
    "--config.tune.loop.steps=40",
    "--config.tune.loop.evaluate_every=20",
    "--config.tune.loop.checkpoint_every=10",
    "--config.tune.controls=('none',)",
    "--config.baselines.names=('popularity', 'tfidf')",
    "--config.baselines.hybrids=('teacher+tfidf', 'delrec+teacher')",
)
AVX2 = "--xla_cpu_max_isa=AVX2"
METRICS = ("HR@1", "NDCG@10")
GROUPS = {
    "recommenders in closed form": ("popularity", "tfidf"),
    "teacher": ("teacher", "hybrid(teacher+tfidf)"),
    "language model's systems": (
        *("lm_no_prompt", "lm_random_prompt", "lm_shuffled_prompt", "lm_distilled_prompt"),
        *("lm_true_prompt", "lm_words", "lm_embeddings", "lm_tuned_no_prompt", "delrec"),
        "hybrid(delrec+teacher)",
    ),
}

LOGS = {
    "pre-training": "lm/round-1",
    "the teacher": "teacher/model",
    "stage 1": "prompt/distilled",
    "stage 2": "adapter/distilled",
}


class Variant(NamedTuple):
    """What is different: the processors that the run may use, and XLA's flags."""

    shown: str
    cores: str
    flags: str = ""
    beside: str = "two cores"  # what it is compared with


VARIANTS = {
    "two cores": Variant("two cores", "0,1"),
    "again": Variant("two cores, the same command again", "0,1"),
    "one core": Variant("one core (`taskset -c 0`)", "0"),
    "other core": Variant("the other core (`taskset -c 1`), beside the first", "1", "", "one core"),
    "AVX2": Variant(f"two cores, `XLA_FLAGS={AVX2}`", "0,1", AVX2),
    "one core, AVX2": Variant(f"one core, `XLA_FLAGS={AVX2}`", "0", AVX2),
}


def run(workdir: Path, variant: Variant) -> None:
    """Runs all stages under a variant."""
    command = [str(Path(sys.executable).with_name("delrec")), "run"]
    flags = [f"--config={ROOT / 'configs' / 'storefront.py'}", f"--workdir={workdir}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment |= {"JAX_PLATFORMS": "cpu"} | (
        {"XLA_FLAGS": variant.flags} if variant.flags else {}
    )
    with workdir.with_suffix(".log").open("w") as log:
        ended = subprocess.run(
            ["taskset", "-c", variant.cores, *command, *flags, *SHORTENED],
            env=environment,
            stdout=log,
            stderr=log,
            check=False,
        )
    if ended.returncode:
        sys.exit(f"{variant.shown}: the run ended with {ended.returncode}; see {log.name}")


def metrics(workdir: Path) -> dict[tuple[str, ...], float]:
    """The values of `metrics.json` over all users, by protocol, system and metric; empty if the run has not come so far."""
    file = workdir / "report" / "metrics.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    return {
        (row["protocol"], row["system"], row["metric"]): row["value"]
        for row in rows
        if row["metric"] in METRICS and "@" not in row["protocol"]
    }


def losses(workdir: Path, log: str) -> dict[int, float]:
    """The training loss by step; empty if the run has not come so far."""
    file = workdir / log / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def farthest(one: Mapping[Any, float], other: Mapping[Any, float], form: str) -> str:
    """The largest difference of values of the same name, as text; "–" without any."""
    apart = [abs(other[name] - value) for name, value in one.items() if name in other]
    return "–" if not apart else f"{max(apart):{form}}" if max(apart) else "0"


def row(variant: Variant, first: Path, found: Path) -> list[str]:
    """One line of the table."""
    now = metrics(found)
    values = [f"{now['full', name, 'HR@1']:.3f}" if now else "–" for name in ("teacher", "delrec")]
    if first == found:
        return [variant.shown, "", *[""] * (len(LOGS) + len(GROUPS)), *values]
    files = "–"
    if now:
        stored = digests(first)
        changed = differing(stored, digests(found))
        files = f"{len(changed)} of {len(stored)}"
    apart = [farthest(losses(first, log), losses(found, log), ".1e") for log in LOGS.values()]
    for systems in GROUPS.values():
        before = {key: value for key, value in metrics(first).items() if key[1] in systems}
        apart.append(farthest(before, now, ".3f"))
    return [variant.shown, files, *apart, *values]


def machine() -> str:
    """As the other measurements name it."""
    told = harness.machine()
    wide = " (AVX-512)" if "avx512f" in Path("/proc/cpuinfo").read_text() else ""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax"))
    return (
        f"{told['cores']} cores of {told['cpu']}{wide}, {round(told['memory_gib'])} GiB, no accelerator; "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Runs the variants one after another, and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--room", type=Path)
    parser.add_argument("--as_they_are", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        room = options.room or Path(temporary)
        room.mkdir(exist_ok=True)
        rows: list[list[str]] = []
        for name in options.only:
            workdir = room / name.replace(" ", "_").replace(",", "")
            if not (options.as_they_are or metrics(workdir)):
                began = time.monotonic()
                run(workdir, VARIANTS[name])
                print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            beside = room / VARIANTS[name].beside.replace(" ", "_")
            rows.append(row(VARIANTS[name], beside, workdir))
            print(json.dumps(rows[-1]), flush=True)
    write(rows)


def write(rows: list[list[str]]) -> None:
    """Writes the measurement."""
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    told: dict[str, Any] = {
        "title": "One config on other cores and another processor",
        "note": "The storefront, shortened (200 users, 100 steps of pre-training and of the teacher, 40 of each stage). Files: "
        "all that a run leaves but for checkpoints and times. Differences are those from the first run: of the logged losses, "
        "and the largest of HR@1 and NDCG@10 over all protocols, where one user is 0.005. AVX2 is emulated by a flag; no other "
        "processor was tried. –: the run had not come so far.",
        "columns": [
            "run",
            "files that differ",
            *[f"loss of {name}" for name in LOGS],
            *[f"metrics of the {name}" for name in GROUPS],
            "HR@1 of the teacher",
            "HR@1 of DELRec",
        ],
        "rows": rows,
        "command": ".venv/bin/python benchmarks/determinism.py",
        "commit": commit[:7],
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path = ROOT / "results" / "measured" / f"{NAME}.json"
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(path)


if __name__ == "__main__":
    main()
