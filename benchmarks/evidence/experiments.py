"""The experiments behind `results/`: which commands, in which order, what is compared, and what is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

DATA, RUNS, WEIGHTS = "DATA", "RUNS", "WEIGHTS"
"""How published commands name the folder of the corpora, that of the workdirs, and pretrained weights."""


@dataclass(frozen=True)
class Command:
    """One `delrec` command with a workdir of its own.

    Attributes:
        name: folder in `results/` that its figures belong to.
        workdir: name of its folder in RUNS.
        words: the words after `delrec`, with DATA, RUNS and WEIGHTS in place of folders.
        writes: the folder in the workdir that holds the records.
        weights: a directory or hub name in the place of WEIGHTS.
    """

    name: str
    workdir: str
    words: tuple[str, ...]
    writes: str
    weights: str = WEIGHTS

    @property
    def text(self) -> str:
        """The command as it is published."""
        return " ".join(("delrec", *self.words))

    def arguments(self, data: Path, runs: Path) -> list[str]:
        """The words with the folders of this machine."""
        places = {f"={DATA}/": f"={data}/", f"={RUNS}/": f"={runs}/"}
        places |= {f"weights={WEIGHTS}": f"weights={self.weights}"}
        found = list(self.words)
        for there, here in places.items():
            found = [word.replace(there, here, 1) for word in found]
        return found


@dataclass(frozen=True)
class Experiment:
    """One corpus under one split, ranked by every recommender.

    Attributes:
        name: folder in `results/`.
        corpus: folder in DATA.
        config: config file, from the root of the repository.
        flags: overrides of the config.
        teachers: the recommenders that are trained; each is a workdir per seed.
        seeds: the seeds of each.
        compare: pairs for `collect.py`.
    """

    name: str
    corpus: str
    config: str
    flags: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ("sasrec", "gru4rec", "caser")
    seeds: tuple[int, ...] = (0, 1, 2)
    compare: tuple[str, ...] = ("*,teacher", "hybrids")

    def commands(self, teacher: str) -> list[Command]:
        """One `delrec baseline` per seed, with workdirs `NAME-TEACHER-SEED`."""
        found = []
        for seed in self.seeds if teacher in self.teachers else ():
            workdir = f"{self.name}-{teacher}-{seed}"
            words = (
                "baseline",
                f"--config={self.config}",
                f"--config.data.path={DATA}/{self.corpus}",
                *self.flags,
                f"--config.teacher.name={teacher}",
                f"--config.seed={seed}",
                f"--workdir={RUNS}/{workdir}",
            )
            found.append(Command(self.name, workdir, words, "baseline"))
        return found


_STEAM = ("--config.data.domain=games", "--config.data.k_core=3")
_CEASE_HYBRIDS = "--config.baselines.hybrids=('markov+ease','markov+ease+tfidf','markov+cease','markov+cease+tfidf')"


def _closed(name: str, corpus: str, config: str, *flags: str) -> Experiment:
    """Closed forms alone, which have no seeds; popularity stands in for the teacher, as it takes no time."""
    return Experiment(
        f"{name}_closed",
        corpus,
        config,
        (*flags, _CEASE_HYBRIDS),
        teachers=("popularity",),
        seeds=(0,),
        compare=(
            *(f"cease,{other}" for other in ("ease", "markov", "tfidf")),
            "hybrids",
            "hybrid(markov+cease*),hybrid(markov+ease+tfidf)",
        ),
    )


EXPERIMENTS = (
    Experiment("ml100k", "ml-100k", "configs/teachers/ml_100k.py"),
    Experiment("office", "office-products", "configs/teachers/small.py"),
    Experiment("steam", "steam", "configs/teachers/small.py", _STEAM),
    Experiment("beauty", "beauty", "configs/teachers/beauty.py"),
    _closed("ml100k", "ml-100k", "configs/teachers/ml_100k.py"),
    _closed("office", "office-products", "configs/teachers/small.py"),
    _closed("steam", "steam", "configs/teachers/small.py", *_STEAM),
    _closed("beauty", "beauty", "configs/teachers/beauty.py"),
    Experiment(
        "ml100k_temporal",
        "ml-100k",
        "configs/teachers/ml_100k.py",
        ("--config.split.kind=global_temporal",),
    ),
)

LEFT_OUT = (
    "split.kind=by_user, on all corpora",
    "split.kind=global_temporal, on all corpora but ML-100K",
    "more than three seeds",
    "paired tests under other protocols than full, and of groups of users (collect.py --protocols)",
)


def commands(experiments: Sequence[Experiment] = EXPERIMENTS, only: str = "*") -> list[Command]:
    """All commands in the order in which they run: the first recommender on all corpora, then the others.

    Args:
        experiments: what runs.
        only: patterns of names or workdirs, separated by commas.
    """
    teachers = dict.fromkeys(teacher for one in experiments for teacher in one.teachers)
    found = [
        command
        for teacher in teachers
        for experiment in experiments
        for command in experiment.commands(teacher)
    ]
    patterns = only.split(",")
    return [
        command
        for command in found
        if any(
            fnmatchcase(text, one) for text in (command.name, command.workdir) for one in patterns
        )
    ]
