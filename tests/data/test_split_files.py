import dataclasses
import json

import numpy as np
import pytest

from delrec_jax.data import stored_arrays
from delrec_jax.data.interactions import Catalogue, Corpus, from_rows
from delrec_jax.data.split_files import load_split, save_split, sequences_hash
from delrec_jax.data.split_kinds import KINDS, SplitConfig, make_split
from delrec_jax.data.splits import PARTS
from delrec_jax.errors import UserError

NAMES = tuple(map(str, range(10)))
REMEDY = "delete it and run `delrec prepare` again"


def make_corpus(rows=12, *, last_item=1, last_time=50, last_user="z"):
    rng = np.random.default_rng(0)
    items = [rng.integers(0, 10, 3 + k % 4) for k in range(rows)]
    times = [np.sort(rng.integers(0, 50, len(row))) for row in items]
    users = [*(f"u{k}" for k in range(rows)), last_user]
    interactions = from_rows(
        users, [*items, np.array([1, 2, last_item])], [*times, np.array([0, 1, last_time])]
    )
    return Corpus("shop", Catalogue(NAMES, NAMES, {}), interactions, {})


def config_of(kind):
    dealt = {"valid_users": 0.3, "test_users": 0.2, "seed": 5} if kind == "by_user" else {}
    return SplitConfig(kind=kind, **dealt)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_split_is_the_one_that_was_made(kind, tmp_path):
    corpus, config = make_corpus(), config_of(kind)
    if kind == "given":
        corpus = dataclasses.replace(corpus, parts=("train", "valid", "test") * 4 + ("train",))
    split = make_split(corpus, config)
    content = save_split(split, tmp_path / "split.npz", config=config)
    loaded = load_split(tmp_path / "split.npz", corpus.interactions)
    again = make_split(corpus, config)
    assert loaded.kind == kind and loaded.interactions is corpus.interactions
    assert loaded.train.user_ids == again.train.user_ids
    pairs = [
        (getattr(loaded.train, n), getattr(again.train, n)) for n in ("offsets", "items", "times")
    ]
    for part in PARTS:
        pairs += [
            (loaded.users(part), again.users(part)),
            (loaded.target(part), again.target(part)),
        ]
        pairs.append((loaded.parts[part].places, again.parts[part].places))
    for found, expected in pairs:
        assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert content == save_split(again, tmp_path / "again.npz", config=config)
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["again.npz", "split.npz"]


def test_the_file_says_how_the_split_was_made(tmp_path):
    corpus, config = make_corpus(), config_of("by_user")
    content = save_split(make_split(corpus, config), tmp_path / "split.npz", config=config)
    with np.load(tmp_path / "split.npz") as stored:
        header = json.loads(str(stored["header"]))
        assert str(stored["hash"]) == content
        assert stored["train_lengths"].tolist() == make_split(corpus, config).train.lengths.tolist()
    assert header == {
        "kind": "by_user",
        "config": {**dataclasses.asdict(SplitConfig()), "kind": "by_user"}
        | {"valid_users": 0.3, "test_users": 0.2, "seed": 5},
        "sequences": sequences_hash(corpus.interactions),
    }
    with pytest.raises(ValueError, match="by_user split was not made by a config of leave_one_out"):
        save_split(make_split(corpus, config), tmp_path / "other.npz", config=SplitConfig())


def test_the_hash_depends_on_split_seed_and_sequences(tmp_path):
    def content(config, corpus):
        return save_split(make_split(corpus, config), tmp_path / "split.npz", config=config)

    config = config_of("by_user")
    hashes = {
        content(config, make_corpus()),
        content(dataclasses.replace(config, seed=6), make_corpus()),
        content(config, make_corpus(last_item=3)),
        content(config_of("leave_one_out"), make_corpus()),
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    "other", [{"last_item": 3}, {"last_time": 51}, {"last_user": "y"}, {"rows": 11}]
)
def test_the_split_of_another_corpus_is_refused(other, tmp_path):
    save_split(make_split(make_corpus(), SplitConfig()), tmp_path / "s.npz", config=SplitConfig())
    with pytest.raises(UserError) as error:
        load_split(tmp_path / "s.npz", make_corpus(**other).interactions)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 's.npz'}: the split was made from sequences with hash")
    assert message.endswith(REMEDY)


def test_altered_cut_and_missing_files_are_refused(tmp_path):
    corpus, path = make_corpus(), tmp_path / "s.npz"
    with pytest.raises(UserError, match=r"s\.npz: no such split file; run `delrec prepare` first"):
        load_split(path, corpus.interactions)
    save_split(make_split(corpus, SplitConfig()), path, config=SplitConfig())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"s\.npz: not a readable split file .*{REMEDY}"):
        load_split(path, corpus.interactions)
    path.write_bytes(content)
    with np.load(path) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    header, stated = json.loads(str(arrays.pop("header"))), str(arrays.pop("hash"))
    arrays["test_places"][0] -= 1
    stored_arrays.save_arrays(path, header, arrays, stated_hash=stated)
    with pytest.raises(UserError, match=rf"s\.npz: the content has hash .* altered .*{REMEDY}"):
        load_split(path, corpus.interactions)
