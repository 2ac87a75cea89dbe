"""DELRec with a pretrained sentence encoder: arms by what they decide, several seeds, collected in `results/minilm_NAME/`.

    python benchmarks/evidence/encoders.py --data=FOLDER --runs=FOLDER --weights=FOLDER_OR_NAME
        [--only=office-paper-0,...] [--seconds=600] [--list]

An arm is a run of one config with a few keys changed; arms of a seed share corpus, teacher, baselines and language model: the
workdir of each begins as a copy of the first arm's. Seeds share corpus and baselines, which no seed changes. Resumable as
`run.py`, and with the same journal. On a borrowed machine, `--seconds` ends what is running in order, and
`benchmarks/accelerator/README.md` says how the weights get there.

Named before any test item of these runs was ranked, the confirmatory family (Holm within it) is, on NDCG@10, `full`:

1. Office: the best hybrid with a tuned encoder by validation, against the best hybrid without a language model
2. Office: the tuned encoder with the distilled prompt against that with the random prompt
3. Office: the tuned encoder with the distilled prompt against that without a prompt
4. Office: the frozen encoder with the distilled prompt against distilled scale and recency alone
5. Office: SASRec with the encoder's vectors (P2Rec) against random vectors of the same spectrum
6. Beauty: the same as 5

All other tests are exploratory.
"""

import argparse
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from experiments import DATA, RUNS, WEIGHTS, Command
from run import Start, delrec, run_all

from delrec_jax.errors import UserError
from delrec_jax.results.provenance import RESULTS
from delrec_jax.results.sources import finished
from delrec_jax.results.summary import collect

_ONLY_RPS = "--config.distill.tasks.ta.share=0.0"
_ALONE = "--config.tune.controls=()"
_STRONG = ("--config.teacher.name=ease+markov+tfidf", "--config.teacher.folds=5")
_COMPARE = (
    *("hybrids", "*,teacher", "delrec,lm_tuned_*_prompt"),
    *(
        "lm_distilled_prompt,lm_readout",
        "lm_distilled_prompt,lm_*_prompt",
        "lm_readout,lm_no_prompt",
    ),
    "hybrid(teacher+markov+ease+tfidf+*),hybrid(teacher+markov+ease+tfidf)",
    "hybrid(teacher+markov+ease+tfidf+*),hybrid(markov+ease+tfidf)",
    "hybrid(teacher+markov+cease+tfidf+*),hybrid(teacher+markov+cease+tfidf)",
    "hybrid(markov+ease+*),hybrid(markov+ease+tfidf)",
)


@dataclass(frozen=True)
class Corpus:
    """One corpus: its name here and in `configs/minilm/`, its folder in DATA, and what all its arms change."""

    name: str
    folder: str
    flags: tuple[str, ...] = ()


CORPORA = (
    Corpus("office", "office-products"),
    # Of 22,363 test users so many that two cores rank a system in a minute; the same ones for all systems and seeds.
    Corpus("beauty", "beauty", ("--config.evaluate.users=6000",)),
    Corpus("ml100k", "ml-100k"),
    Corpus("steam", "steam"),
)

ARMS: dict[str, tuple[str, ...]] = {
    "paper": (),
    "user": ("--config.distill.prompt=user", _ONLY_RPS, _ALONE),
    "both": ("--config.distill.prompt=both", _ONLY_RPS, _ALONE),
    "strong": (*_STRONG, _ALONE),
    "residual": (*_STRONG, "--config.tune.beside=teacher", _ALONE),
    "refreshed": ("--config.tune.refresh_vectors=25", "--config.tune.controls=('none',)"),
}
"""What each arm changes.

paper     the config itself: SASRec as the teacher, one prompt for all users, all controls
user      slots made from what SASRec expects of each user
both      the sum of both kinds of slots
strong    the teacher is the best hybrid without a language model, honest about the training part
residual  the same, and stage 2 is tuned beside it
refreshed the titles' vectors are made again with the adapters, with and without a prompt
"""

SEEDS = (0, 1, 2)

_OF_ALL_SEEDS = ("config.json", "data", "closed_forms")


def command(corpus: Corpus, arm: str, seed: int) -> Command:
    """The run of one arm under one seed."""
    workdir = f"minilm_{corpus.name}-{arm}-{seed}"
    words = (
        "run",
        f"--config=configs/minilm/{corpus.name}.py",
        f"--config.data.path={DATA}/{corpus.folder}",
        f"--config.lm.weights={WEIGHTS}",
        *corpus.flags,
        *ARMS[arm],
        f"--config.seed={seed}",
        f"--workdir={RUNS}/{workdir}",
        "--update",  # a copy of the first arm's workdir: what differs is made again
    )
    return Command(f"minilm_{corpus.name}", workdir, words, "records")


def commands(only: str = "*") -> list[tuple[Corpus, str, int]]:
    """Corpus, arm and seed of each run in the order in which they run: arms by what they decide, then corpora and seeds.

    Args:
        only: patterns of workdirs without `minilm_`, such as `office-paper-0`, separated by commas.
    """
    every = [(corpus, arm, seed) for corpus in CORPORA for arm in ARMS for seed in SEEDS]
    patterns = only.split(",")
    return [
        (corpus, arm, seed)
        for corpus, arm, seed in every
        if any(fnmatchcase(f"{corpus.name}-{arm}-{seed}", one) for one in patterns)
    ]


def begin(made: Path, first: Path, parts: Sequence[str]) -> None:
    """Begins a workdir as a copy of another one, or of parts of it, if that one exists and this one does not."""
    if made.exists() or not first.exists():
        return
    if not parts:
        shutil.copytree(first, made)
        return
    made.mkdir()
    for part in parts:
        found, place = first / part, made / part
        if found.exists():
            (shutil.copytree if found.is_dir() else shutil.copy2)(found, place)


def run_one(
    corpus: Corpus, arm: str, seed: int, *, data: Path, runs: Path, weights: str, start: Start
) -> list[str]:
    """Runs one arm from what a workdir that exists has in common with it; returns what failed.

    Args:
        corpus, arm, seed: which.
        data, runs, weights: places of this machine.
        start: runs `delrec`, as for `run_all`.
    """
    made = command(corpus, arm, seed)
    of_arm = arm == "paper"  # the first arm begins with what the first seed has of all seeds
    first = command(corpus, "paper", SEEDS[0] if of_arm else seed)
    if first != made:
        begin(runs / made.workdir, runs / first.workdir, _OF_ALL_SEEDS if of_arm else ())
    return run_all([replace(made, weights=weights)], data, runs, start=start)


def collect_one(corpus: Corpus, runs: Path, results: Path) -> None:
    """Collects the finished runs of a corpus: systems of arms other than the first have the arm's name."""
    workdirs = []
    for arm in ARMS:
        for seed in SEEDS:
            made = runs / command(corpus, arm, seed).workdir
            if finished(made / "records"):
                workdirs.append(str(made) if arm == "paper" else f"{arm}={made}")
    if workdirs:
        print(collect(results / f"minilm_{corpus.name}", workdirs, compare=_COMPARE))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is asked for; a failure ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, help="folder of the corpora")
    options.add_argument("--runs", type=Path, help="folder of the workdirs")
    options.add_argument("--weights", default="sentence-transformers/all-MiniLM-L6-v2")
    options.add_argument("--only", default="*", help="patterns such as office-paper-0")
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    options.add_argument("--seconds", type=float, default=math.inf, help="no run goes on after")
    options.add_argument("--list", action="store_true", help="print the commands, run nothing")
    values = options.parse_args(argv)
    chosen = commands(values.only)
    if values.list:
        print("\n".join(command(*one).text for one in chosen))
        return
    if not chosen or values.data is None or values.runs is None:
        options.error("--data and --runs are needed, and --only patterns of runs; see --list")
    data, runs = values.data.resolve(), values.runs.resolve()
    places = {"data": data, "runs": runs, "weights": values.weights}
    until = time.monotonic() + values.seconds
    failed = []
    for corpus, arm, seed in chosen:
        if time.monotonic() < until:
            failed += run_one(corpus, arm, seed, **places, start=partial(delrec, until=until))
    try:
        for corpus in dict.fromkeys(corpus for corpus, _, _ in chosen):
            collect_one(corpus, runs, values.results)
    except UserError as error:
        failed.append(str(error))
    if failed:
        print("encoders: failed: " + ", ".join(failed), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
