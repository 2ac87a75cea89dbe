"""Nothing of validation or test reaches P2Rec's categories, texts, embeddings or recommenders.

One corpus, one that differs from it in every user's test item, and one that differs in every validation item. All that is
made before `evaluate` must be the same to the last bit, where validation has chosen the same steps.
"""

import csv
import json

import numpy as np
import pytest
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.p2rec import files, parse
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.prepared import load_data

USERS, ITEMS, POPULAR, LENGTH = 24, 30, 12, 7
MADE = (
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
        flags = [
            *(
                flag for flag in P2REC if "teachers" not in flag
            ),  # a tuple given twice is appended to
            "--config.method=p2rec",
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
        ]
        for stage in STAGES:
            delrec(stage, CONFIG, f"--workdir={workdir}", *flags)
        workdirs[moved] = workdir
    return workdirs


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
