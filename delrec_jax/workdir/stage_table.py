"""The stages of each method, in the order of the data: what each reads and writes, and the function that runs it.

This is the only list of stages: the command line, the workdir's fingerprints, the pipeline and `delrec plan` all read it. It
imports nothing else of the package, so that `delrec --help` is quick; functions are given by name, and `stages.pipeline`
loads them when they are run.
"""

from dataclasses import dataclass, replace

DATA = ("data",)
LANGUAGE = ("data", "language")


@dataclass(frozen=True)
class Stage:
    """What a stage reads and writes.

    Attributes:
      runs: its function, as `module:name` within the package.
      folder: where it writes.
      needs: stages whose results it reads.
      settings: parts of the config that it reads; `SECTION.*` stands for only the names of a section's keys.
      coded: parts that it also reads where it trains a tokenizer with codes for listed candidates.
      judged_by: parts of the config that change nothing of what it makes and only decide when that is good enough: after a
        change the stage runs again, but keeps its files.
      results: files without which it is not finished; their content identifies it to the stages that need it.
      reads: attributes of `stages.inputs.Inputs` that are passed to its function after the workdir.
      adapts: whether it trains something of the adopted language model; the config's section of its name then has a batch size,
        an optimizer and a loop.
    """

    runs: str
    folder: str
    needs: tuple[str, ...]
    settings: tuple[str, ...]
    results: tuple[str, ...] = ()
    coded: tuple[str, ...] = ()
    judged_by: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    adapts: bool = False


_PREPARED = ("statistics.json", "corpus/prepared.json", "split.npz")
_CANDIDATES = ("candidates_valid.npz", "candidates_test.npz")

_FIRST: dict[str, Stage] = {
    "prepare": Stage(
        "stages.prepare:prepare",
        "data",
        (),
        ("data", "split", "candidates"),
        (*_PREPARED, *_CANDIDATES),
    ),
    "pretrain": Stage(
        "pretraining.pretrain:pretrain",
        "lm",
        ("prepare",),
        (
            *("lm", "prompts", "teacher.name", "seed", "distill.tasks.*"),
            *("pretrain.text", "pretrain.optimizer", "pretrain.loop"),
            *("pretrain.bag_weight", "pretrain.catalogue_weight"),
        ),
        ("base.json",),
        coded=("distill.num_candidates", "tune.num_candidates"),
        judged_by=("pretrain.gate", "pretrain.rounds"),
        reads=("data", "templates"),
    ),
    "teach": Stage(
        "stages.teach:teach",
        "teacher",
        ("prepare",),
        ("teacher", "seed"),
        ("teacher.json",),
        reads=DATA,
    ),
    "fit": Stage(
        "stages.fit:fit",
        "closed_forms",
        ("prepare",),
        ("baselines.names", "baselines.users", "baselines.seed"),
        ("settings.json",),
        reads=DATA,
    ),
    "baseline": Stage(
        "stages.baseline:baseline",
        "baseline",
        ("teach", "fit"),
        ("baselines", "evaluate"),
        reads=DATA,
    ),
}
_P2REC: dict[str, Stage] = {
    # It reads `method` because DELRec needs only one repetition.
    "parse": Stage(
        "p2rec.parse:parse",
        "preference",
        ("pretrain", "teach"),
        ("method", "parse"),
        ("parse.json",),
        reads=LANGUAGE,
        adapts=True,
    ),
    "augment": Stage(
        "p2rec.augment:augment",
        "augmented",
        ("parse",),
        ("augment",),
        ("augment.json",),
        reads=LANGUAGE,
    ),
}
_P2REC_RESULTS: dict[str, Stage] = {
    "evaluate": Stage(
        "p2rec.evaluate:evaluate",
        "records",
        ("augment", "fit"),
        ("baselines", "evaluate"),
        reads=LANGUAGE,
    ),
    "report": Stage("p2rec.report:report", "report", ("evaluate",), (), reads=DATA),
}
_DELREC: dict[str, Stage] = {
    "distill": Stage(
        "delrec.distill:distill",
        "prompt",
        ("pretrain", "teach"),
        ("distill",),
        reads=LANGUAGE,
        adapts=True,
    ),
    "tune": Stage(
        "delrec.tune:tune", "adapter", ("distill",), ("tune",), reads=LANGUAGE, adapts=True
    ),
    "evaluate": Stage(
        "delrec.evaluate:evaluate",
        "records",
        ("tune", "fit"),
        ("baselines", "evaluate"),
        reads=LANGUAGE,
    ),
    "report": Stage("delrec.report:report", "report", ("evaluate",), (), reads=LANGUAGE),
}
_AUGMENTED_TEACHER = {
    "distill": replace(_DELREC["distill"], needs=("pretrain", "augment")),
}

STAGES: dict[str, dict[str, Stage]] = {
    "delrec": _FIRST | _DELREC,
    "p2rec": _FIRST | _P2REC | _P2REC_RESULTS,
    "delrec_p2rec": _FIRST | _P2REC | _DELREC | _AUGMENTED_TEACHER,
}
"""The stages by method: DELRec, P2Rec, and DELRec with a teacher that P2Rec augmented."""

ALL = tuple(STAGES["delrec_p2rec"])
"""The names of all stages; this method has every one of them."""

COMMANDS = ("run", "baseline")
"""The commands that run several stages: all of a method, or those that need no language model."""


def stages_of(method: str, command: str) -> tuple[str, ...]:
    """Returns the stages that a command runs, in their order.

    Args:
      method: a key of `STAGES`.
      command: one of `COMMANDS`.
    """
    if command == "baseline":
        return ("prepare", "teach", "fit", "baseline")
    return tuple(stage for stage in STAGES[method] if stage != "baseline")


def adapting_stages(method: str) -> tuple[str, ...]:
    """Returns the stages that train something of the adopted language model, which are sections of the config too.

    Args:
      method: a key of `STAGES`.
    """
    return tuple(name for name, stage in STAGES[method].items() if stage.adapts)
