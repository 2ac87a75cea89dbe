"""The script of the sentence encoder's evidence: what a workdir begins with."""

import pytest
from evidence_workdirs import encoders

OFFICE = encoders.CORPORA[0]


@pytest.fixture
def began(tmp_path):
    """Makes the first arm under the first seed, then runs another one: returns what its workdir had before `delrec`."""
    first = tmp_path / encoders.command(OFFICE, "paper", 0).workdir
    for name in ("data/split.npz", "closed_forms/settings.json", "teacher/teacher.json"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text(name)
    (first / "config.json").write_text("{}")

    def run(arm, seed):
        made, found = tmp_path / encoders.command(OFFICE, arm, seed).workdir, []

        def start(words, log):
            files = made.rglob("*") if made.exists() else ()
            found.extend(sorted(str(one.relative_to(made)) for one in files if one.is_file()))
            return 0

        places = {"data": tmp_path, "runs": tmp_path, "weights": "W"}
        assert encoders.run_one(OFFICE, arm, seed, **places, start=start) == []
        return found

    return run


def test_seeds_share_corpus_and_baselines_and_arms_of_a_seed_all(began):
    shared = ["closed_forms/settings.json", "config.json", "data/split.npz"]
    everything = [*shared, "teacher/teacher.json"]
    assert began("paper", 0) == everything, "it goes on with its own"
    assert began("paper", 1) == shared
    assert began("user", 0) == everything
    assert began("user", 2) == [], "of its seed there is none"
