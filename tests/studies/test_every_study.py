"""Every shipped study runs all its arms on a tiny storefront, a few steps each, in one process."""

import dataclasses
import json
from collections import Counter

import pytest
from compiling import quick_compiler
from study_files import tiny_base
from tiny_p2rec import P2REC
from tiny_storefront import FEW_BASELINES, ROOT, TINY

from delrec_jax.config import to_dict
from delrec_jax.studies.beyond import study_rows
from delrec_jax.studies.opening import open_study
from delrec_jax.studies.runs import StudyFile
from delrec_jax.studies.summary import summarise
from delrec_jax.studies.worker import execute

STUDIES = sorted(path.stem for path in (ROOT / "configs" / "studies").glob("*.py"))
QUICK = {
    "components": ("full",)
}  # one arm of one study in the quick tests; all of all in the slow ones
SMALLER = {  # the tiny store has 48 users and 36 items
    "split.label_users": 25,
    "distill.num_candidates": 3,
    "tune.num_candidates": 3,
    "distill.top_h": 4,
}
"""By what values of these keys are divided."""


# Pre-training has no lists, so that the one kind of texts that TINY has is left out; and lists need room.
LISTED = (
    *("--config.pretrain.text.short=0.1", "--config.prompts.max_tokens=192"),
    "--config.tune.num_candidates=6",
)


class Tiny(StudyFile):
    """A study file whose study has one seed, and users that the tiny store has."""

    def study(self, base):
        found = super().study(base)
        arms = [dataclasses.replace(arm, changes=_smaller(arm.changes)) for arm in found.arms]
        return dataclasses.replace(found, arms=tuple(arms), seeds=(0,))


def _smaller(changes):
    return {
        key: value // SMALLER[key] if key in SMALLER else value for key, value in changes.items()
    }


def run(name, root, arms=()):
    """Opens a study, executes its jobs, and returns it with its summary."""
    file = Tiny.load(ROOT / "configs" / "studies" / f"{name}.py")
    flags = P2REC if "p2rec" in str(file.base) else TINY
    more = LISTED if name in ("candidates", "rivals") else ()
    opened = open_study(file, tiny_base(file.base, *flags, *FEW_BASELINES, *more), root)
    with quick_compiler():
        for job in opened.jobs:
            if arms and job.run.arm.name not in arms:
                continue
            settings = to_dict(job.run.experiment)
            execute(
                {
                    "root": str(root),
                    "run": job.run.name,
                    "stages": job.stages,
                    "settings": settings,
                    "code": {},
                }
            )
    return opened, summarise(opened, study_rows(opened), show_test=True)


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        *QUICK.items(),
        *(pytest.param(name, (), marks=pytest.mark.slow) for name in STUDIES),
    ],
)
def test_a_shipped_study_runs(name, arms, tmp_path):
    opened, summary = run(name, tmp_path / "s", arms)
    wanted = set(arms) or {arm.name for arm in opened.study.arms}
    rows = [row for row in summary["systems"] if row["protocol"] == opened.study.protocol]
    assert {row["system"].partition("/")[2] for row in rows} - {""} == wanted
    lines = (tmp_path / "s" / "journal.jsonl").read_text().splitlines()
    ran = Counter((json.loads(line)["run"], json.loads(line)["stage"]) for line in lines)
    assert set(ran.values()) == {1}
    if not arms:
        assert summary["study"]["unfinished"] == []
        assert len(ran) == sum(len(job.keys) for job in opened.jobs)
