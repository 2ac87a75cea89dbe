"""Nothing of validation or test reaches what is trained: the language model, teachers, prompts, adapters, categories, texts.

One corpus, one that differs from it in every user's test item, and one that differs in every validation item. All that is
made before `evaluate` must be the same to the last bit, where validation has chosen the same steps; where it chooses (stage 2),
all the parameters between which it chooses.
"""

import csv
import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, delrec, open_workspace
from watching import Watch

from delrec_jax.p2rec import files, parse
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.training.watching import TIMINGS
from delrec_jax.workdir.prepared import load_data

USERS, ITEMS, POPULAR, LENGTH = 24, 30, 12, 7
MADE = (
    "lm/model/result.safetensors",
    "teacher/model/result.safetensors",
    "preference/seed-0/categories.safetensors",
    "preference/seed-0/model/result.safetensors",
    "augmented/embeddings/untuned.safetensors",
    "augmented/embeddings/seed-0/tuned.safetensors",
    "augmented/embeddings/seed-0/shuffled.safetensors",
    "augmented/embeddings/seed-0/random.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher/teacher.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher_augmented/teacher.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher_augmented_shuffled_text/teacher.safetensors",
)
STAGES = ("prepare", "pretrain", "teach", "parse", "augment")
PROMPTS = ("distilled", "shuffled", "true", "random")
STAGE_ONE = (
    *(f"prompt/{name}/result.safetensors" for name in PROMPTS),
    *(f"prompt/lists_{part}.npz" for part in ("train", "valid", "heldout")),
    "prompt/agreement.json",
)
TRAINED = tuple(f"prompt/{name}" for name in PROMPTS[:-1])
TUNED = tuple(f"adapter/{name}" for name in ("distilled", "none", "random", "shuffled", "true"))


def write_corpus(folder, *, valid, test):
    """Histories of mostly popular items; `valid` and `test` move each user's last item but one, and last item.

    Popular validation items, in both corpora: training beats step 0, so that the same step is chosen.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    # Every item trains: one that nobody had would leave the catalogue, and the others' numbers would move.
    rows = [
        [*rng.choice(POPULAR, LENGTH - 1, replace=False), POPULAR + user % (ITEMS - POPULAR)]
        for user in range(USERS)
    ]
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "title"])
        writer.writerows([f"i{item}", f"Title {item % 5} of {item}"] for item in range(ITEMS))
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        for user, row in enumerate(rows):
            unseen = np.setdiff1d(np.arange(ITEMS), row)
            popular, rare = unseen[unseen < POPULAR], unseen[unseen >= POPULAR]
            asked = [popular[(user + valid) % len(popular)], rare[(user + test) % len(rare)]]
            whole = [*row, *asked]
            writer.writerows([f"u{user}", f"i{item}", place] for place, item in enumerate(whole))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs by what was moved, up to `augment`."""
    root = tmp_path_factory.mktemp("leaks")
    workdirs = {}
    for moved in ("nothing", "test", "valid"):
        folder, workdir = root / moved / "shop", root / moved / "run"
        folder.parent.mkdir()
        write_corpus(folder, valid=int(moved == "valid"), test=int(moved == "test"))
        for stage in STAGES:
            delrec(stage, CONFIG, f"--workdir={workdir}", *flags(folder), "--config.method=p2rec")
        workdirs[moved] = workdir
    return workdirs


def flags(folder):
    """Of both methods: what they share is trained once."""
    return [
        *(flag for flag in P2REC if "teachers" not in flag),  # a tuple given twice is appended to
        "--config.data.corpus=csv",
        f"--config.data.path={folder}",
        "--config.pretrain.text.full=0.0",
        "--config.pretrain.text.recent=1.0",
        "--config.pretrain.loop.steps=3",
        "--config.teacher.loop.steps=12",
        "--config.teacher.loop.evaluate_every=12",
        "--config.teacher.optimizer.learning_rate=0.02",
        "--config.parse.seeds=1",
        "--config.augment.teachers=('gru4rec',)",
        "--config.tune.loss_over=candidates",  # whose negatives know what a user has
        "--config.tune.anchor=0.0",
        "--config.tune.num_candidates=8",
    ]


@pytest.fixture(scope="module")
def delrec_runs(runs):
    """DELRec's workdirs by what was moved, up to `tune`, and by training run its parameters after every step."""
    found = {}
    for moved, before in runs.items():
        workdir, watch = before.with_name("delrec"), Watch()
        for name in ("data", "lm", "teacher"):
            shutil.copytree(before / name, workdir / name)
        with mock.patch.object(task, "fit", watch.fit):
            for stage in ("distill", "tune"):
                delrec(stage, CONFIG, f"--workdir={workdir}", *flags(before.with_name("shop")))
        found[moved] = workdir, watch.params
    return found


def log_of(run, name):
    """A training's log without the clock: what validation chooses by."""
    rows = map(json.loads, (run / name / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def split_of(run):
    return load_data(open_workspace(run)).split


@pytest.mark.parametrize(("moved", "kept"), [("test", "valid"), ("valid", "test")])
def test_the_corpora_differ_in_one_part_alone(runs, moved, kept):
    one, other = split_of(runs["nothing"]), split_of(runs[moved])
    assert not (one.target(moved) == other.target(moved)).any()
    np.testing.assert_array_equal(one.target(kept), other.target(kept))
    np.testing.assert_array_equal(one.train.items, other.train.items)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("moved", ["test", "valid"])
def test_what_is_made_does_not_know_their_items(runs, made, moved):
    steps = [
        [row["step"] for row in json.loads((run / "augmented/augment.json").read_text())]
        for run in (runs["nothing"], runs[moved])
    ]
    assert steps[0] == steps[1], "another choice of steps: the comparison would say nothing"
    one, other = ((run / made).read_bytes() for run in (runs["nothing"], runs[moved]))
    assert one == other


@pytest.mark.parametrize("made", STAGE_ONE)
@pytest.mark.parametrize("moved", ["test", "valid"])
def test_stage_one_does_not_know_their_items(delrec_runs, made, moved):
    one, other = (delrec_runs[name][0] / made for name in ("nothing", moved))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", [*TRAINED, *TUNED])
@pytest.mark.parametrize("moved", ["test", "valid"])
def test_no_step_of_training_knows_their_items(delrec_runs, name, moved):
    # Every step, as the chosen one may be step 0.
    steps, others = (delrec_runs[which][1][name] for which in ("nothing", moved))
    first, last = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one)])
        for one in (steps[0], steps[-1])
    )
    assert len(steps) > 6 and (first != last).any(), "it trained nothing"
    jax.tree.map(np.testing.assert_array_equal, steps, others)


@pytest.mark.parametrize("name", [*TRAINED, *TUNED])
def test_only_validation_items_choose_and_only_in_stage_two(delrec_runs, name):
    one, test, valid = (delrec_runs[moved][0] for moved in ("nothing", "test", "valid"))
    assert log_of(one, name) == log_of(test, name)
    assert (log_of(one, name) == log_of(valid, name)) == name.startswith("prompt/")
    for made in ("result.safetensors", "result.json"):
        assert (one / name / made).read_bytes() == (test / name / made).read_bytes()


def test_a_users_text_is_their_training_part(runs):
    ws = open_workspace(runs["nothing"])
    data = load_data(ws)
    parsing = parse.Parsing(ws, data.split, Inputs(ws).language)
    categories = files.load_categories(ws, 0)
    make, titles = parsing.examples(categories), parsing._pieces.titles
    for user in range(USERS):
        text = make.of(data.split.train.history(user)).ids
        shown = [item for item in range(ITEMS) if contains(text, titles[item])]
        np.testing.assert_array_equal(np.sort(data.split.train.history(user)), shown)


def contains(text, title):
    """Whether the tokens of a title stand in a text, one after the other."""
    windows = np.lib.stride_tricks.sliding_window_view(text, len(title))
    return bool((windows == title).all(axis=1).any())
