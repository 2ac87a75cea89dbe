import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import delrec_jax.random_items
from delrec_jax.data.candidates import (
    load_candidates,
    sampled_candidates,
    save_candidates,
)
from delrec_jax.data.interactions import from_rows
from delrec_jax.data.split_files import save_split
from delrec_jax.data.split_kinds import (
    KINDS,
    SplitConfig,
    by_user,
    global_temporal,
    leave_one_out,
)
from delrec_jax.data.splits import PARTS
from delrec_jax.errors import UserError
from delrec_jax.random_items import distinct_items, stream_keys, stream_place

ITEMS = 30


def make_split(rows, names=None, kind="leave_one_out"):
    names = names or [f"u{k}" for k in range(len(rows))]
    times = [np.arange(len(row)) for row in rows]
    interactions = from_rows(names, [np.array(row, int) for row in rows], times)
    settings = {
        "leave_one_out": {},
        "global_temporal": {"valid_from": 0.4, "test_from": 0.7},
        "by_user": {"valid_users": 0.3, "test_users": 0.3},
    }
    config = SplitConfig(kind=kind, **settings[kind])
    try:
        if kind == "leave_one_out":
            return leave_one_out(interactions)
        return {"by_user": by_user, "global_temporal": global_temporal}[kind](interactions, config)
    except UserError:
        assume(False)


# Repeats happen: a user may buy the target twice.
rows_of_items = st.lists(
    st.lists(st.integers(0, ITEMS - 1), min_size=3, max_size=10), min_size=3, max_size=7
)
# A given split has the form of one by users.
every_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "given"])


@every_kind
@settings(max_examples=60)
@given(rows_of_items, st.integers(2, 20), st.integers(0, 99), st.sampled_from(PARTS))
def test_invariants(kind, rows, m, seed, part):
    split = make_split(rows, kind=kind)
    candidates = sampled_candidates(split, part, m, seed=seed, num_items=ITEMS)
    assert candidates.users.tolist() == split.users(part).tolist()
    assert candidates.items.shape == (len(split.users(part)), m)
    assert candidates.items.dtype == np.int32
    asked = zip(candidates.users, split.target(part), candidates.items.tolist(), strict=True)
    for user, target, drawn in asked:
        assert len(set(drawn)) == m
        assert set(drawn) <= set(range(ITEMS))
        # Of the user's whole sequence only the part's own target is there, what comes later included.
        assert set(drawn) & set(rows[user]) == {target}


@every_kind
@settings(max_examples=60)
@given(rows_of_items, rows_of_items, st.integers(2, 20), st.integers(0, 99), st.data())
def test_a_users_draw_does_not_depend_on_other_users(kind, rows, others, m, seed, data):
    """The same users among others, in another order, with other numbers."""
    names = [f"u{k}" for k in range(len(rows))]
    more = data.draw(st.permutations([*zip(names, rows, strict=True), *enumerate(others)]))
    few = make_split(rows, names, kind)
    many = make_split([row for _, row in more], [str(name) for name, _ in more], kind)
    for part in PARTS:
        found = [
            {
                (split.interactions.user_ids[user], target): row
                for user, target, row in zip(
                    drawn.users, split.target(part), drawn.items.tolist(), strict=True
                )
            }
            for split in (few, many)
            for drawn in [sampled_candidates(split, part, m, seed=seed, num_items=ITEMS)]
        ]
        common = found[0].keys() & found[1].keys()
        assert kind != "leave_one_out" or len(common) == len(rows)
        assert [found[0][key] for key in common] == [found[1][key] for key in common]


def naive_draw(name, sequence, target, *, part, m, seed):
    """One user's set as a loop: what was met is left out, the target is put at its place."""
    keys = stream_keys(f"candidates/{seed}/{part}", [name])
    met = np.unique(sequence)
    drawn = distinct_items(keys, m - 1, num_items=ITEMS, excluded=met)[0].tolist()
    drawn.insert(int(stream_place(keys, m)[0]), int(target))
    return drawn


@every_kind
@settings(max_examples=40)
@given(rows_of_items, st.integers(2, 20), st.integers(0, 9), st.sampled_from(PARTS))
def test_all_users_at_once_are_a_loop_over_users(kind, rows, m, seed, part):
    split = make_split(rows, kind=kind)
    candidates = sampled_candidates(split, part, m, seed=seed, num_items=ITEMS)
    expected = [
        naive_draw(f"u{user}", rows[user], target, part=part, m=m, seed=seed)
        for user, target in zip(split.users(part), split.target(part), strict=True)
    ]
    assert candidates.items.tolist() == expected


def test_more_users_than_one_step_takes(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, ITEMS, 3 + k % 6).tolist() for k in range(50)]
    split = make_split(rows)
    whole = sampled_candidates(split, "test", 6, seed=0, num_items=ITEMS)
    monkeypatch.setattr(delrec_jax.data.candidates, "_CELLS", 7 * 2 * 6)  # 7 users a step
    monkeypatch.setattr(delrec_jax.random_items, "_CELLS", 2 * ITEMS)
    steps = sampled_candidates(split, "test", 6, seed=0, num_items=ITEMS)
    assert steps.items.tolist() == whole.items.tolist() and steps.hash == whole.hash


def test_draws_differ_by_seed_part_and_user_and_repeat_otherwise():
    split = make_split([[0, 1, 2, 3]] * 2)

    def draw(part, seed):
        return sampled_candidates(split, part, 10, seed=seed, num_items=ITEMS)

    first = draw("test", 0)
    assert np.array_equal(first.items, draw("test", 0).items)
    assert first.hash == draw("test", 0).hash
    assert not np.array_equal(first.items, draw("test", 1).items)
    negatives = [set(first.items[0]) - {3}, set(first.items[1]) - {3}]
    assert negatives[0] != negatives[1]
    assert negatives[0] != set(draw("valid", 0).items[0]) - {2}
    assert len({first.hash, draw("test", 1).hash, draw("valid", 0).hash}) == 3


def test_the_position_of_the_target_says_nothing_and_negatives_are_uniform():
    count, m = 4000, 5
    split = make_split([[0, 1, 2]] * count)
    drawn = sampled_candidates(split, "test", m, seed=0, num_items=13).items
    places = np.bincount(np.argmax(drawn == 2, axis=1), minlength=m)
    assert np.all(np.abs(places - count / m) < 5 * np.sqrt(count / m))
    per_item = np.bincount(drawn.ravel(), minlength=13)
    assert per_item[:3].tolist() == [0, 0, count]
    expected = count * (m - 1) / 10
    assert np.all(np.abs(per_item[3:] - expected) < 5 * np.sqrt(expected))


def test_the_whole_rest_of_the_catalogue_can_be_asked_and_not_one_more():
    split = make_split([[0, 1, 2]])
    drawn = sampled_candidates(split, "test", 8, seed=0, num_items=10)
    assert sorted(drawn.items[0].tolist()) == [2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(UserError, match=r"sampled-9 needs 8 .*'u0' leaves 7 of 10; .* 8 or less"):
        sampled_candidates(split, "test", 9, seed=0, num_items=10)
    with pytest.raises(UserError, match="at least 2"):
        sampled_candidates(split, "test", 1, seed=0, num_items=10)
    with pytest.raises(ValueError, match="item 2 is not in a catalogue of 2"):
        sampled_candidates(split, "test", 2, seed=0, num_items=2)
    # Of several users the one with least left is named, and met items count once.
    split = make_split([[0, 1, 2], [0, 1, 2, 3, 1, 1], [0, 5, 6]])
    with pytest.raises(UserError, match=r"'u1' leaves 6 of 10; .* 7 or less"):
        sampled_candidates(split, "test", 9, seed=0, num_items=10)


def test_save_and_load(tmp_path):
    split = make_split([[0, 1, 2, 3], [4, 5, 6]])
    candidates = sampled_candidates(split, "valid", 6, seed=3, num_items=ITEMS)
    path = tmp_path / "deeper" / "valid.npz"
    save_candidates(candidates, path)
    loaded = load_candidates(path)
    for field in dataclasses.fields(candidates):
        before, after = getattr(candidates, field.name), getattr(loaded, field.name)
        assert np.array_equal(before, after), field.name
        assert type(before) is type(after)
    assert loaded.items.dtype == np.int32
    assert [entry.name for entry in path.parent.iterdir()] == ["valid.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"items": np.arange(12, dtype=np.int32).reshape(2, 6)},
        {"users": np.array([0, 2], np.int32)},
        {"seed": 4},
        {"part": "test"},
        {"hash": "0" * 64},
    ],
)
def test_an_altered_file_is_refused(tmp_path, change):
    split = make_split([[0, 1, 2, 3], [4, 5, 6]])
    candidates = sampled_candidates(split, "valid", 6, seed=3, num_items=ITEMS)
    save_candidates(dataclasses.replace(candidates, **change), tmp_path / "c.npz")
    with pytest.raises(UserError, match=r"c\.npz.*altered.*delrec prepare"):
        load_candidates(tmp_path / "c.npz")


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such candidate file"):
        load_candidates(tmp_path / "none.npz")
    split = make_split([[0, 1, 2]])
    candidates = sampled_candidates(split, "test", 3, seed=0, num_items=ITEMS)
    path = tmp_path / "c.npz"
    save_candidates(candidates, path)
    content = path.read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"c\.npz: not a readable candidate file"):
            load_candidates(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    split = make_split([[0, 1, 2]])
    save_split(split, tmp_path / "split.npz", config=SplitConfig())
    with pytest.raises(UserError, match=r"split\.npz: not a readable candidate file"):
        load_candidates(tmp_path / "split.npz")
