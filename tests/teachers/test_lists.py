import re
from dataclasses import astuple, replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.teachers.list_files import ListsKey, inputs_hash, load_lists, save_lists
from delrec_jax.teachers.lists import ListSettings, RowsOf, distillation_lists, top_lists

ITEMS = 30
TABLE = np.random.default_rng(0).normal(size=(ITEMS, ITEMS)).astype(np.float32)
EVERYTHING = np.ones(ITEMS, bool)


def score_fn(histories):
    """Scores by the most recent item: a row of the table."""
    return jnp.asarray(TABLE)[histories[:, -1]]


def rows(count, seed=1):
    return np.random.default_rng(seed).integers(0, ITEMS, (count, 4)).astype(np.int32)


def brute_force(history, seen, allowed, count):
    order = np.argsort(-TABLE[history[-1]], kind="stable")
    return [i for i in order if allowed[i] and i not in set(seen)][:count]


@settings(max_examples=25)
@given(count=st.integers(1, 9), seed=st.integers(0, 1000), top_h=st.integers(1, 8))
def test_top_lists_against_brute_force(count, seed, top_h):
    histories, rng = rows(count, seed), np.random.default_rng(seed)
    seen = np.where(rng.random((count, 6)) < 0.3, -1, rng.integers(0, ITEMS, (count, 6)))
    allowed = rng.random(ITEMS) < 0.7
    allowed[:15] = True
    items, scores = top_lists(
        score_fn, histories, top_h=top_h, allowed=allowed, seen=seen, batch_size=4
    )
    for n in range(count):
        assert items[n].tolist() == brute_force(histories[n], seen[n], allowed, top_h)
        np.testing.assert_array_equal(scores[n], TABLE[histories[n, -1], items[n]])


def test_padding_in_seen_excludes_nothing_and_last_item_can_be_listed():
    histories = rows(3)
    items, _ = top_lists(
        score_fn, histories, top_h=ITEMS, allowed=EVERYTHING, seen=np.full((3, 2), -1)
    )
    assert np.sort(items, axis=1).tolist() == [list(range(ITEMS))] * 3


def test_equal_scores_stand_in_index_order():
    items, _ = top_lists(
        lambda h: jnp.zeros((len(h), 5)), rows(2), top_h=5, allowed=np.ones(5, bool)
    )
    assert items.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("batch_size", [3, 64])
def test_rows_that_are_made_as_they_are_asked_for_give_the_same_lists(batch_size):
    histories, asked = rows(11, seed=4), []
    seen = np.where(histories % 3 > 0, histories, -1)

    def made(given):
        """The rows of an array, each only when it is asked for, and wider for some rows."""

        def make(chosen):
            asked.append(len(chosen))
            return np.pad(given[chosen], ((0, 0), (chosen.max() % 3, 0)), constant_values=-1)

        return RowsOf(len(given), make)

    chosen = {"allowed": EVERYTHING, "batch_size": batch_size}
    lists = ListSettings(top_h=3, num_candidates=7, seed=5)
    for found, expected in (
        (
            top_lists(score_fn, made(histories), top_h=3, seen=made(seen), **chosen),
            top_lists(score_fn, histories, top_h=3, seen=seen, **chosen),
        ),
        (
            astuple(
                distillation_lists(
                    score_fn, made(histories), settings=lists, seen=made(seen), **chosen
                )
            ),
            astuple(distillation_lists(score_fn, histories, settings=lists, seen=seen, **chosen)),
        ),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert max(asked) == min(batch_size, 11)


def test_no_histories_give_empty_lists():
    items, scores = top_lists(score_fn, rows(0), top_h=3, allowed=EVERYTHING)
    assert items.shape == scores.shape == (0, 3)


def test_compiled_once_for_all_batches():
    traces = []

    def counting(histories):
        traces.append(histories.shape)
        return score_fn(histories)

    top_lists(counting, rows(11), top_h=2, allowed=EVERYTHING, batch_size=4)
    assert traces == [(4, 4)]


def test_distillation_lists_hold_the_top_and_fair_negatives():
    histories, config = rows(40), ListSettings(top_h=4, num_candidates=10, seed=3)
    allowed = EVERYTHING.copy()
    allowed[[5, 6]] = False
    lists = distillation_lists(
        score_fn, histories, settings=config, allowed=allowed, seen=histories, batch_size=16
    )
    tops, _ = top_lists(score_fn, histories, top_h=4, allowed=allowed, seen=histories)
    np.testing.assert_array_equal(lists.items[:, :4], tops)
    for n, candidates in enumerate(lists.items):
        assert len(set(candidates)) == 10
        assert not set(candidates) & ({5, 6} | set(histories[n]))
        np.testing.assert_array_equal(lists.scores[n], TABLE[histories[n, -1], candidates])
    # Every item that is open to a row is drawn somewhere: 40 rows x 6 draws from 28.
    assert set(lists.items[:, 4:].ravel()) == set(np.flatnonzero(allowed))


def test_negatives_follow_from_seed_and_row_alone():
    config = ListSettings(top_h=2, num_candidates=8, seed=0)

    def make(histories, *, seed=0, batch_size=16):
        changed = replace(config, seed=seed)
        return distillation_lists(
            score_fn, histories, settings=changed, allowed=EVERYTHING, batch_size=batch_size
        ).items

    full = make(rows(9))
    np.testing.assert_array_equal(full, make(rows(9), batch_size=2))
    np.testing.assert_array_equal(full[:5], make(rows(9)[:5]))
    other = make(rows(9), seed=1)
    np.testing.assert_array_equal(full[:, :2], other[:, :2])
    assert (full[:, 2:] != other[:, 2:]).any()
    same_history = make(np.repeat(rows(1), 2, axis=0))
    assert (same_history[0, 2:] != same_history[1, 2:]).any()


def test_too_few_open_items_are_errors():
    allowed = np.zeros(ITEMS, bool)
    allowed[:6] = True
    histories = np.array([[7, 8], [0, 1]])
    with pytest.raises(UserError, match=re.escape("row 1 has 4 items")):
        top_lists(score_fn, histories, top_h=5, allowed=allowed, seen=histories)
    config = ListSettings(top_h=2, num_candidates=5)
    with pytest.raises(UserError, match=r"row 1 has 4 items .* 5 are needed"):
        distillation_lists(score_fn, histories, settings=config, allowed=allowed, seen=histories)
    with pytest.raises(UserError, match="31 are needed"):
        top_lists(score_fn, histories, top_h=31, allowed=EVERYTHING)


def test_scores_that_are_not_finite_are_errors():
    with pytest.raises(UserError, match="not finite"):
        top_lists(lambda h: score_fn(h).at[0, 3].set(jnp.nan), rows(2), top_h=2, allowed=EVERYTHING)


@pytest.mark.parametrize(("top_h", "message"), [(21, "distill.num_candidates=20"), (0, "top_h: 0")])
def test_impossible_settings_are_errors(top_h, message):
    with pytest.raises(UserError, match=f"distill.top_h.*{message}|{message}"):
        ListSettings(top_h=top_h, num_candidates=20)


@pytest.fixture
def stored(tmp_path):
    histories, config = rows(5), ListSettings(top_h=2, num_candidates=4)
    lists = distillation_lists(score_fn, histories, settings=config, allowed=EVERYTHING)
    key = ListsKey("step-120-ab12", config, inputs_hash(histories, None, EVERYTHING))
    path = tmp_path / "lists.npz"
    save_lists(path, lists, key=key)
    return path, lists, key


def test_round_trip_and_equal_bytes(stored):
    path, lists, key = stored
    loaded = load_lists(path, key=key)
    np.testing.assert_array_equal(loaded.items, lists.items)
    np.testing.assert_array_equal(loaded.scores, lists.scores)
    assert loaded.items.dtype == np.int32 and loaded.scores.dtype == np.float32
    first = path.read_bytes()
    save_lists(path, lists, key=key)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "step-240-cd34"}, "made for checkpoint step-120-ab12, asked for step-240"),
        ({"settings": ListSettings(top_h=3, num_candidates=4)}, "made for settings"),
        ({"inputs": inputs_hash(rows(5, seed=2), None, EVERYTHING)}, "made for inputs"),
    ],
)
def test_lists_of_another_key_are_refused(stored, change, message):
    path, _, key = stored
    with pytest.raises(UserError, match=message):
        load_lists(path, key=replace(key, **change))


def test_damaged_and_altered_files_are_refused(stored):
    path, _, key = stored
    with np.load(path) as file:
        parts = dict(file)
    parts["scores"] = parts["scores"] + 1
    np.savez(path, **parts)
    with pytest.raises(UserError, match="altered"):
        load_lists(path, key=key)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as teacher lists"):
        load_lists(path, key=key)
    with pytest.raises(UserError, match="cannot be read as teacher lists"):
        load_lists(path.with_name("absent.npz"), key=key)


def test_hash_sees_shape_type_and_absence():
    values = np.arange(6, dtype=np.int32)
    variants = [
        (values,),
        (values.reshape(2, 3),),
        (values.astype(np.int64),),
        (values, None),
        (None,),
    ]
    assert len({inputs_hash(*v) for v in variants}) == len(variants)
