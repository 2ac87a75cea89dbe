"""P2Rec's ways of augmentation: each tried with one seed on validation items, the best one run with three seeds on test items.

    python benchmarks/evidence/augmentations.py --data=FOLDER --runs=FOLDER [--only=office,...] [--weights=FOLDER]
        [--ways | --way=NAME] [--controls=random,...|none] [--seeds=3] [--apart=NAME] [--list]

Everything up to `parse` is made once for a corpus; the workdir of each way begins as a copy of it. `--ways` ends after the
choice: `results/p2rec_NAME/ways.json` has the validation NDCG@10 of each way, and no test item has been ranked. Without it, the
best way is then run with three seeds and all controls, and collected in `results/p2rec_NAME/summary.json`. `--way` names the
way instead, for a corpus too large to try them all: take one that another corpus chose; `--controls` leaves some out, and
`--seeds` does with fewer. With `--way` and `--apart=NAME` each seed has a workdir of its own, and `results/p2rec_NAME/` has
the seeds that are finished. Resumable as `run.py`, and with the same journal.

Three tests on NDCG@10, `full`, decide for each corpus with an encoder (the tables correct them together with all others of the
corpus, which is stricter). The second and third were named before any test item was ranked with CEASE. The first was at first
over all hybrids, and was narrowed after CEASE with words had been ranked on Office Products, before CEASE with the encoder was:

1. of the hybrids of baselines, the one with the untuned encoder that has the highest validation NDCG@10 against the one without
   a language model that has: `deciding` reads both from the runs. (Hybrids with a teacher do not take part: a network's step is
   chosen by the same validation items, which make it look better than it is, as docs/results/p2rec_encoder.md shows.)
2. CEASE with the untuned encoder's title vectors against CEASE with the titles' words
3. EASE with P2Rec's embeddings against EASE with random vectors of the same spectrum

Two more were named on 2026-12-01, before any hybrid that they compare was ranked with a network (the strongest sum of Beauty
without a language model, 0.0734 with one seed, had been; Holm over the two on each corpus):

4. SASRec with P2Rec + Markov + CEASE + TF-IDF, words in CEASE, against the same with plain SASRec
5. of all hybrids, the one with a language model that has the highest validation NDCG@10 (mean of the seeds) against the one
   without that has. Both may have a network.

All other tests are exploratory.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from experiments import DATA, RUNS, WEIGHTS, Command
from run import run_all

from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import BASELINES, TITLE_VECTORS, hybrid_parts
from delrec_jax.files import write_text
from delrec_jax.results.provenance import RESULTS, commit, machine, now, versions
from delrec_jax.results.sources import finished
from delrec_jax.results.summary import collect

_SASREC = "--config.augment.teachers=('sasrec',)"
_WITH_EASE = "--config.augment.teachers=('sasrec','ease')"
_NO_CONTROLS = "--config.augment.controls=()"
_FIRST = ("prepare", "pretrain", "teach", "parse")
_COMPARE = (
    *(f"teacher_augmented,{other}" for other in ("teacher", "ease", "hybrid(teacher+tfidf)")),
    "teacher_augmented,teacher_augmented_*",
    "*,teacher",
    "hybrids",
)
_OF_ENCODERS = (
    "hybrid(*teacher_augmented+markov+ease+tfidf),hybrid(teacher+markov+ease+tfidf)",
    "hybrid(*teacher_augmented+markov+ease+tfidf),hybrid(markov+ease+tfidf)",
    "hybrid(teacher_augmented+tfidf),hybrid(teacher+tfidf)",
    *("cease,ease", "lm_cease,cease"),
    "hybrid(markov+lm_cease+tfidf),hybrid(markov+cease+tfidf)",
    "hybrid(teacher+markov+lm_cease+tfidf),hybrid(teacher+markov+cease+tfidf)",
    "hybrid(teacher_augmented+markov+tfidf),hybrid(markov+cease+tfidf)",
    "hybrid(teacher*+markov+cease+tfidf),hybrid(teacher+markov+cease+tfidf)",
    "hybrid(teacher*+markov+cease+lm_cease+tfidf),hybrid(teacher+markov+cease+tfidf)",
    "hybrid(markov+cease+lm_cease+tfidf),hybrid(markov+cease+tfidf)",
    # What the first test was on Office Products before it was narrowed.
    "hybrid(teacher+markov+lm_cease+tfidf)@ease,hybrid(teacher+markov+cease+tfidf)@sasrec",
)


@dataclass(frozen=True)
class Corpus:
    """One corpus of the comparison.

    Attributes:
        name: its name here.
        folder: its folder in DATA.
        config: config file, from the root of the repository.
        encoder: whether its language model is a pretrained encoder.
    """

    name: str
    folder: str
    config: str
    encoder: bool = False

    @property
    def ways(self) -> "dict[str, Way]":
        """The ways that are tried."""
        return WAYS | (STARTS if self.encoder else {})


CORPORA = (
    Corpus("office", "office-products", "configs/p2rec/office.py"),
    Corpus("ml100k", "ml-100k", "configs/p2rec/ml100k_mini.py"),
    Corpus("beauty", "beauty", "configs/p2rec/beauty.py"),
    Corpus("minilm_office", "office-products", "configs/p2rec/minilm_office.py", encoder=True),
    Corpus("minilm_beauty", "beauty", "configs/p2rec/minilm_beauty.py", encoder=True),
)


class Way(NamedTuple):
    """`augment.way`, `augment.reduce` and `augment.start_std`."""

    way: str
    reduce: str
    start_std: float = 0.02


WAYS = {
    "initialise": Way("initialise", "pca"),
    "initialise, whitened": Way("initialise", "whitened"),
    "concatenate": Way("concatenate", "pca"),
    "concatenate, whitened": Way("concatenate", "whitened"),
    "halves": Way("halves", "pca"),
    "halves, whitened": Way("halves", "whitened"),
    "adapter": Way("adapter", "pca"),
    "ensemble": Way("ensemble", "pca"),
    "ensemble, whitened": Way("ensemble", "whitened"),
}
"""The ways that are tried on every corpus."""

STARTS = {
    f"initialise, half whitened, std {std:g}": Way("initialise", "half_whitened", std)
    for std in (0.02, 0.05, 0.1)
}
"""The ways that are tried with pretrained encoders too."""


def stage(corpus: Corpus, workdir: str, name: str, *flags: str, writes: str) -> Command:
    """One command of a corpus; SASRec is the only recommender, unless the encoder is pretrained: then EASE is another."""
    words = (
        name,
        f"--config={corpus.config}",
        f"--config.data.path={DATA}/{corpus.folder}",
        *((f"--config.lm.weights={WEIGHTS}",) if corpus.encoder else ()),
        _WITH_EASE if corpus.encoder else _SASREC,
        *flags,
        f"--workdir={RUNS}/{workdir}",
        "--update",  # a copy of another way's workdir: what differs is made again
    )
    return Command(f"p2rec_{corpus.name}", workdir, words, writes)


def base(corpus: Corpus, seeds: int = 1) -> list[Command]:
    """What all ways share; with all seeds where the way is known, since `parse` begins anew with another number of them."""
    folders = {"prepare": "data", "pretrain": "lm", "teach": "teacher", "parse": "preference"}
    workdir = f"p2rec_{corpus.name}-base"
    return [
        stage(corpus, workdir, name, f"--config.parse.seeds={seeds}", writes=folders[name])
        for name in _FIRST
    ]


def trial(corpus: Corpus, way: str) -> Command:
    """One way with one seed and without controls; only validation items are ranked."""
    chosen = corpus.ways[way]
    std = f"{chosen.start_std:g}" if chosen.start_std != Way._field_defaults["start_std"] else ""
    parts = (f"p2rec_{corpus.name}", chosen.way, chosen.reduce, std)
    flags = ("--config.parse.seeds=1", _NO_CONTROLS, _SASREC, *_flags(corpus, chosen))
    return stage(corpus, "-".join(filter(None, parts)), "augment", *flags, writes="augmented")


def best(corpus: Corpus, way: str, controls: str = "", seeds: int = 3) -> Command:
    """The chosen way with all seeds and the test items, with the named controls, with none, or (unnamed) with all."""
    flags = (f"--config.parse.seeds={seeds}", *_controls(controls))
    flags += _flags(corpus, corpus.ways[way])
    return stage(corpus, f"p2rec_{corpus.name}-best", "run", *flags, writes="records")


def one_seed(corpus: Corpus, way: str, seed: int, *, name: str, controls: str = "") -> Command:
    """The same with one seed, in a workdir named after `name`."""
    flags = (f"--config.seed={seed}", "--config.parse.seeds=1", *_controls(controls))
    flags += _flags(corpus, corpus.ways[way])
    return stage(corpus, f"p2rec_{name}-{seed}", "run", *flags, writes="records")


def _controls(named: str) -> tuple[str, ...]:
    if named == "none":
        return (_NO_CONTROLS,)
    chosen = tuple(filter(None, named.split(",")))
    return (f"--config.augment.controls={chosen}",) if chosen else ()


def deciding(workdirs: Sequence[Path], *, networks: bool = False) -> str:
    """The pair `A,B` of the first test: the hybrids of baselines that validation chose, with the encoder and without.

    Args:
        workdirs: those of all seeds.
        networks: of the fifth test: hybrids of recommenders take part, with what their seeds have on average.

    A hybrid in which validation gave the language model no weight is neither with it nor what its name says.
    """
    values: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    for workdir in workdirs:
        for row in json.loads((workdir / "records" / "hybrids.json").read_text()):
            parts = set(hybrid_parts(row["system"]))
            baselines = parts <= set(BASELINES)  # the same for all seeds
            if baselines or networks:
                name = row["system"] if baselines else f"{row['system']}@{row['teacher']}"
                asked = {part for part, weight in row["weights"].items() if weight}
                if _reads(asked) == _reads(parts):  # else validation left the language model out
                    values[_reads(parts)].setdefault(name, []).append(row["valid_ndcg10"])
    best = [_highest(values[read]) for read in (True, False)]
    print(f"the best by validation: {' and '.join(best)}", flush=True)
    return ",".join(best)


def _reads(parts: Set[str]) -> bool:
    """Whether a hybrid of these systems reads titles with a language model (random vectors and shuffled titles do not)."""
    return bool(parts & {*TITLE_VECTORS, "teacher_augmented", "teacher_augmented_untuned_lm"})


def _highest(values: Mapping[str, Sequence[float]]) -> str:
    return max(values, key=lambda name: fmean(values[name]))


def _compared(corpus: Corpus, workdirs: Sequence[Path]) -> tuple[str, ...]:
    if not corpus.encoder:
        return _COMPARE
    return (*_COMPARE, *_OF_ENCODERS, deciding(workdirs), deciding(workdirs, networks=True))


def _flags(corpus: Corpus, way: Way) -> tuple[str, ...]:
    flags = (f"--config.augment.way={way.way}", f"--config.augment.reduce={way.reduce}")
    if way.start_std == Way._field_defaults["start_std"] and not corpus.encoder:
        return flags  # as in its config; those of encoders have another
    return (*flags, f"--config.augment.start_std={way.start_std:g}")


def run_corpus(
    corpus: Corpus,
    data: Path,
    runs: Path,
    results: Path,
    *,
    weights: str,
    only_ways: bool,
    way: str | None = None,
    controls: str = "",
    seeds: int = 3,
) -> None:
    """Runs and collects one corpus: with `way`, or with the best of all ways.

    Raises:
        UserError: a command failed; its log says why.
    """
    begin = [
        command
        for command in base(corpus, seeds if way else 1)
        if not finished(runs / command.workdir / command.writes)
    ]
    _run(begin, data, runs, weights)
    folder = results / f"p2rec_{corpus.name}"
    chosen = way or _choose(corpus, data, runs, folder, weights)
    if only_ways:
        return
    command = best(corpus, chosen, controls, seeds)
    _copy(runs / f"p2rec_{corpus.name}-base", runs / command.workdir)
    _run([command], data, runs, weights)
    made = runs / command.workdir
    print(collect(folder, [str(made)], compare=_compared(corpus, [made])))


def run_apart(
    corpus: Corpus,
    data: Path,
    runs: Path,
    results: Path,
    *,
    weights: str,
    way: str,
    name: str,
    controls: str = "",
    seeds: int = 3,
) -> None:
    """Runs the seeds of one way one by one, each from a copy of the first, and collects after each what is there.

    Raises:
        UserError: a command failed; its log says why.
    """
    commands = [one_seed(corpus, way, seed, name=name, controls=controls) for seed in range(seeds)]
    for number, command in enumerate(commands):
        if number:
            _copy(runs / commands[0].workdir, runs / command.workdir)
        _run([command], data, runs, weights)
        made = [runs / one.workdir for one in commands[: number + 1]]
        compare = _compared(corpus, made)
        print(collect(results / f"p2rec_{name}", [str(one) for one in made], compare=compare))


def _choose(corpus: Corpus, data: Path, runs: Path, folder: Path, weights: str) -> str:
    """Runs every way with one seed, writes what validation items say of each, and returns the best."""
    for way in corpus.ways:
        command = trial(corpus, way)
        _copy(runs / f"p2rec_{corpus.name}-base", runs / command.workdir)
        _run([command], data, runs, weights)
    found = validated(corpus, runs)
    write_text(folder / "ways.json", json.dumps(found, indent=1) + "\n")
    chosen: str = max(found["ways"], key=lambda row: row["valid_ndcg10"])["way"]
    print(f"{corpus.name}: the best way on validation items is {chosen}", flush=True)
    return chosen


def validated(corpus: Corpus, runs: Path) -> dict[str, Any]:
    """The validation NDCG@10 of the plain recommender and of each way, and what the categories are."""
    ways = []
    for way in corpus.ways:
        rows = json.loads(
            (runs / trial(corpus, way).workdir / "augmented" / "augment.json").read_text()
        )
        by_system = {row["system"]: row for row in rows if row["teacher"] == "sasrec"}
        row = by_system["teacher_augmented"]
        ways.append({"way": way, "valid_ndcg10": row["valid_ndcg10"], "step": row["step"]})
        plain = by_system["teacher"]["valid_ndcg10"]
    parsed = json.loads(
        (runs / f"p2rec_{corpus.name}-base" / "preference" / "parse.json").read_text()
    )
    return {
        "plain_valid_ndcg10": plain,
        "ways": ways,
        "parse": parsed,
        "commands": [
            command.text
            for command in (*base(corpus), *map(lambda way: trial(corpus, way), corpus.ways))
        ],
        "date": now(),
        **commit(),
        "machine": machine(),
        "versions": versions(),
    }


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copytree(source, target)


def _run(chosen: Sequence[Command], data: Path, runs: Path, weights: str) -> None:
    named = [replace(command, weights=weights) for command in chosen]
    if failed := run_all(named, data, runs):
        raise UserError(f"{failed[0]}: failed; {runs / failed[0]}.log says why")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is asked for; a failure ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, help="folder of the corpora")
    options.add_argument("--runs", type=Path, help="folder of the workdirs")
    options.add_argument("--only", default=",".join(corpus.name for corpus in CORPORA))
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    options.add_argument("--weights", default="sentence-transformers/all-MiniLM-L6-v2")
    choice = options.add_mutually_exclusive_group()
    choice.add_argument("--ways", action="store_true", help="end after the choice by validation")
    options.add_argument("--seeds", type=int, default=3)
    choice.add_argument("--way", help="run this one, without trying the others")
    options.add_argument("--controls", default="", help="default: all")
    options.add_argument("--apart", metavar="NAME", help="seeds in workdirs of their own")
    options.add_argument("--list", action="store_true", help="print the commands, run nothing")
    values = options.parse_args(argv)
    chosen = [corpus for corpus in CORPORA if corpus.name in values.only.split(",")]
    if values.list:
        for corpus in chosen:
            for command in (*base(corpus), *(trial(corpus, way) for way in corpus.ways)):
                print(command.text)
        return
    if not chosen or values.data is None or values.runs is None:
        options.error("--data and --runs are needed, and --only names of corpora")
    for corpus in chosen:
        if values.way not in (None, *corpus.ways):
            options.error(f"--way: {corpus.name} has {', '.join(map(repr, corpus.ways))}")
    if values.apart and (values.way is None or len(chosen) > 1):
        options.error("--apart needs --way and one corpus")
    places = (values.data.resolve(), values.runs.resolve(), values.results)
    asked = {
        "weights": values.weights,
        "way": values.way,
        "controls": values.controls,
        "seeds": values.seeds,
    }
    try:
        for corpus in chosen:
            if values.apart:
                run_apart(corpus, *places, **asked, name=values.apart)
            else:
                run_corpus(corpus, *places, **asked, only_ways=values.ways)
    except UserError as error:
        print(f"augmentations: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
