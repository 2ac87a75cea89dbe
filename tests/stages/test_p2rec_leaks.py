"""Nothing of the test part reaches P2Rec's categories, texts, embeddings or recommenders.

Two corpora differ in every user's last item alone. All that is made before `evaluate` must be the same to the last bit.
"""

import csv

import numpy as np
import pytest
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.stages import assets

USERS, ITEMS, LENGTH = 24, 30, 7
MADE = (
    "teacher/model/result.safetensors",
    "preference/seed-0/categories.safetensors",
    "preference/seed-0/model/result.safetensors",
    "augmented/embeddings/untuned.safetensors",
    "augmented/embeddings/seed-0/tuned.safetensors",
    "augmented/embeddings/seed-0/shuffled.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher/teacher.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher_augmented/teacher.safetensors",
    "augmented/teachers/gru4rec/seed-0/teacher_augmented_shuffled_text/teacher.safetensors",
)
STAGES = ("prepare", "pretrain", "teach", "parse", "augment")


def write_corpus(folder, *, last):
    """Users with random histories of the first items; `last` moves each one's last item."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [rng.choice(ITEMS, LENGTH, replace=False) for _ in range(USERS)]
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "title"])
        writer.writerows([f"i{item}", f"Title {item % 5} of {item}"] for item in range(ITEMS))
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        for user, row in enumerate(rows):
            unseen = np.setdiff1d(np.arange(ITEMS), row)
            whole = [*row, unseen[(user + last) % len(unseen)]]
            writer.writerows([f"u{user}", f"i{item}", place] for place, item in enumerate(whole))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two workdirs, up to `augment`."""
    root = tmp_path_factory.mktemp("leaks")
    workdirs = []
    for last in (0, 1):
        folder, workdir = root / f"corpus-{last}" / "shop", root / f"run-{last}"
        folder.parent.mkdir()
        write_corpus(folder, last=last)
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
            "--config.teacher.loop.steps=4",
            "--config.parse.seeds=1",
            "--config.augment.teachers=('gru4rec',)",
        ]
        for stage in STAGES:
            delrec(stage, CONFIG, f"--workdir={workdir}", *flags)
        workdirs.append(workdir)
    return workdirs


def test_the_two_corpora_differ_in_the_test_part_alone(runs):
    one, other = (assets.load_data(open_workspace(run)).split for run in runs)
    assert not np.array_equal(one.target("test"), other.target("test"))
    np.testing.assert_array_equal(one.target("valid"), other.target("valid"))
    np.testing.assert_array_equal(one.train.items, other.train.items)


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_does_not_know_the_test_items(runs, made):
    one, other = ((run / made).read_bytes() for run in runs)
    assert one == other


def test_targets_and_texts_are_of_the_training_part(runs, monkeypatch):
    """Validation items may select; they are in no text and no target."""
    from delrec_jax.stages import p2rec_assets
    from delrec_jax.stages.parse import _Parsing

    ws = open_workspace(runs[0])
    data = assets.load_data(ws)
    parsing = _Parsing(ws, data, assets.load_language(ws, data))
    categories = p2rec_assets.load_categories(ws, 0)
    everyone = np.zeros((USERS, categories.count), np.float32)
    for user in range(USERS):
        text = parsing._example(user, everyone)["ids"]
        titles = parsing.pieces.titles
        shown = [item for item in range(ITEMS) if contains(text, titles[item])]
        np.testing.assert_array_equal(np.sort(data.split.train.history(user)), shown)


def contains(text, title):
    """Whether the tokens of a title stand in a text, one after the other."""
    windows = np.lib.stride_tricks.sliding_window_view(text, len(title))
    return bool((windows == title).all(axis=1).any())
