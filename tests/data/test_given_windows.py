"""LLaRA's own split, on generated frames: which windows train, which items are targets, and what is refused."""

import dataclasses
import shutil

import numpy as np
import pytest
from corpus_files import save_columns

from delrec_jax.data.candidates import sampled_candidates
from delrec_jax.data.corpora import DataConfig, load_corpus, prepare_corpus, source_changed
from delrec_jax.data.corpora.steam import resources
from delrec_jax.data.interactions import fingerprint
from delrec_jax.data.split_files import load_split, save_split
from delrec_jax.data.split_kinds import KINDS, SplitConfig, make_split
from delrec_jax.errors import UserError

ITEMS = 30
GIVEN = SplitConfig(kind="given")
PERSON = list(range(8))  # one person's games: each window begins one game later
FRAMES = {
    "Train_data.df": [(PERSON[start : start + 4], PERSON[start + 4]) for start in range(4)]
    + [([11, 11, 12], 11)],  # repeats, the next item among them
    "Val_data.df": [([20, 21], 22), ([], 5), ([23], 24)],
    "Test_data.df": [([9, 10, 29], 28), ([20], 21)],
}
EVALUATED = {"valid": [([20, 21], 22), ([23], 24)], "test": [([9, 10, 29], 28), ([20], 21)]}


def write_frame(path, windows):
    """As LLaRA stores them: padded at the end to one length, and an empty history counted as one."""
    width = 4
    return save_columns(
        path,
        {
            "seq": [[*history, *[ITEMS] * (width - len(history))] for history, _ in windows],
            "len_seq": [max(1, len(history)) for history, _ in windows],
            "next": [following for _, following in windows],
        },
    )


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "steam"
    folder.mkdir()
    for name, windows in FRAMES.items():
        write_frame(folder / name, windows)
    names = "".join(f"{item}::Game {item}\n" for item in range(ITEMS))
    (folder / "id2name.txt").write_text(names)
    return DataConfig(
        corpus="steam",
        edition="llara",
        manual_dir=str(folder),
        min_length=2,
        repeats="keep",
        domain="games",
    )


@pytest.fixture
def corpus(shop, tmp_path):
    return prepare_corpus(shop, tmp_path / "data", given=True)


def raw(corpus, items):
    return [int(corpus.catalogue.ids[item]) for item in items]


def test_training_windows_train_whole_and_no_item_of_the_others_does(corpus):
    split = make_split(corpus, GIVEN)
    trained = [raw(corpus, split.train.history(user)) for user in range(split.train.num_users)]
    whole = [[*history, following] for history, following in FRAMES["Train_data.df"]]
    assert trained[: len(whole)] == whole and not any(trained[len(whole) :])
    assert split.training_users.tolist() == list(range(len(whole)))
    for part, windows in EVALUATED.items():
        found = zip(split.histories(part), split.target(part), strict=True)
        assert [
            (raw(corpus, history), *raw(corpus, [target])) for history, target in found
        ] == windows
    assert corpus.dropped["interactions: user shorter than data.min_length"] == 1, "no history"


def test_the_parts_are_stored_with_the_corpus_and_the_split(corpus, tmp_path):
    again = load_corpus(tmp_path / "data")
    assert again.parts == corpus.parts == ("train",) * 5 + ("valid",) * 2 + ("test",) * 2
    moved = dataclasses.replace(corpus, parts=("train",) * 4 + ("valid",) * 3 + ("test",) * 2)
    plain = dataclasses.replace(corpus, parts=None)
    assert len({fingerprint(one) for one in (corpus, moved, plain)}) == 3
    split = make_split(corpus, GIVEN)
    content = save_split(split, tmp_path / "split.npz", config=GIVEN)
    loaded = load_split(tmp_path / "split.npz", again.interactions)
    np.testing.assert_array_equal(loaded.train.items, split.train.items)
    np.testing.assert_array_equal(loaded.target("test"), split.target("test"))
    assert content != save_split(make_split(moved, GIVEN), tmp_path / "b.npz", config=GIVEN)


def test_twenty_candidates_have_the_target_once_and_nothing_of_the_window(corpus):
    split = make_split(corpus, GIVEN)
    sets = sampled_candidates(split, "test", 15, seed=0, num_items=corpus.catalogue.num_items)
    for history, target, items in zip(
        split.histories("test"), split.target("test"), sets.items, strict=True
    ):
        assert (items == target).sum() == 1 and not np.isin(history, items).any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "given"])
def test_overlapping_windows_are_split_in_no_other_way(corpus, kind):
    with pytest.raises(UserError, match=f"{kind!r}.* overlap: .* use split.kind=given"):
        make_split(corpus, SplitConfig(kind=kind))


def test_without_the_split_the_training_frame_is_left_alone(shop, tmp_path):
    corpus = prepare_corpus(shop, tmp_path / "data")
    assert corpus.parts is None
    assert {user.partition("-")[0] for user in corpus.interactions.user_ids} == {"val", "test"}
    with pytest.raises(UserError, match="'given', but 'steam-llara' has no training, validation"):
        make_split(corpus, GIVEN)
    assert "Train_data.df" not in [resource.file_name for resource in resources("llara")]
    assert resources("llara", given=True)[0].url.endswith("steam/Train_data.df")


@pytest.mark.parametrize("name", FRAMES)
def test_a_missing_frame_is_named(shop, tmp_path, name):
    shutil.move(f"{shop.manual_dir}/{name}", tmp_path)
    with pytest.raises(UserError, match=f"split.kind=given needs .*, but {name} is not there"):
        prepare_corpus(shop, tmp_path / "data", given=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k_core": 2}, "data.k_core is 2, .* set data.k_core=0"),
        ({"max_users": 5}, "data.max_users is 5, .* set data.max_users=0"),
        ({"min_length": 3}, "data.min_length is 3, .* set data.min_length=2"),
        ({"repeats": "first"}, "data.repeats is 'first', .* set data.repeats='keep'"),
        ({"corpus": "csv", "edition": "", "manual_dir": ""}, "'csv' .* no training, validation"),
    ],
)
def test_what_would_change_the_windows_is_refused(shop, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        prepare_corpus(dataclasses.replace(shop, **changes), tmp_path / "data", given=True)


def test_a_part_without_windows_is_refused(corpus):
    for part in ("train", "valid", "test"):
        other = "test" if part == "train" else "train"
        parts = tuple(other if one == part else one for one in corpus.parts)
        with pytest.raises(UserError, match="none may be 0"):
            make_split(dataclasses.replace(corpus, parts=parts), GIVEN)


def test_other_files_of_the_same_edition_are_noticed(shop, tmp_path):
    """A folder of the user's own files can change, or be another one."""
    place = tmp_path / "corpus"
    prepare_corpus(shop, place)
    assert not source_changed(shop, place)
    other = tmp_path / "other"
    shutil.copytree(shop.manual_dir, other)
    assert not source_changed(dataclasses.replace(shop, manual_dir=str(other)), place)
    names = (other / "id2name.txt").read_text().replace("Game 3\n", "Game three\n")
    (other / "id2name.txt").write_text(names)
    assert source_changed(dataclasses.replace(shop, manual_dir=str(other)), place)
