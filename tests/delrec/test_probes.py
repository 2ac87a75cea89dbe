"""What probes find where the answer is known: systems, prompts and words made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.data.interactions import Interactions
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.delrec.probes.nearest_words import DRAWS, nearest_words
from delrec_jax.delrec.probes.order_sensitivity import order_sensitivity, reordered
from delrec_jax.delrec.probes.prompt_transfer import (
    OWN,
    CarriedPrompt,
    prompt_cosines,
    prompt_transfer,
)
from delrec_jax.delrec.probes.ranked_users import asked_recommender, changed, draw_users
from delrec_jax.delrec.probes.slot_ablation import slot_ablation, without_slot
from delrec_jax.language.soft_prompt import slot_rows

USERS, ITEMS, LENGTH, SEED = 60, 30, 6, 3
CIRCLE = np.random.default_rng(0).permutation(ITEMS)
NEXT = np.zeros(ITEMS, int)  # the item that follows each: one circle through all items
NEXT[CIRCLE] = np.roll(CIRCLE, -1)
ONE_HOT = np.eye(ITEMS + 1, dtype=np.float32)[:, :ITEMS]  # the last row is padding's


@pytest.fixture(scope="module")
def split():
    """Users who begin anywhere and follow `NEXT`, so that the last item says what comes next."""
    items = [np.random.default_rng(0).integers(0, ITEMS, USERS)]
    for _ in range(LENGTH - 1):
        items.append(NEXT[items[-1]])
    interactions = Interactions(
        user_ids=tuple(f"u{user}" for user in range(USERS)),
        offsets=np.arange(USERS + 1, dtype=np.int64) * LENGTH,
        items=np.stack(items, axis=1).ravel().astype(np.int32),
        times=np.tile(np.arange(LENGTH), USERS),
    )
    return leave_one_out(interactions)


def after_the_last(histories):
    """Names the item that follows the last one."""
    return jnp.asarray(ONE_HOT[NEXT])[histories[:, -1]]


def after_any(histories):
    """Names the items that follow any of the history's, whatever their order."""
    return jnp.asarray(np.append(ONE_HOT[NEXT], ONE_HOT[-1:], axis=0))[histories].sum(1)


def test_only_a_system_that_uses_order_loses_by_another_order(split):
    """Both are right about every user, as all items that follow another one of the history are seen."""
    users = draw_users(split, USERS, seed=SEED, batch_size=16)
    systems = {
        name: asked_recommender(scores, LENGTH, users)
        for name, scores in {"last": after_the_last, "set": after_any}.items()
    }
    rows = order_sensitivity(systems, users, max_history=2, seed=SEED)
    found = {(row["system"], row["order"]): row for row in rows}
    orders = ("true", "shuffled", "reversed", "shuffled_read")
    assert list(found) == [(system, order) for system in systems for order in orders]
    assert found["last", "true"]["value"] == 1
    for order in orders:
        row = found["set", order]
        assert row["value"] == 1
        assert row["change"] == row["change_low"] == row["change_high"] == row["moved"] == 0
    for order in orders[1:]:
        row = found["last", order]
        assert row["change_low"] <= row["change"] <= row["change_high"] < 0
        assert row["relative"] == row["change"] == pytest.approx(row["value"] - 1)
    moved = {order: found["last", order]["moved"] for order in orders}
    assert moved["true"] == 0 and moved["reversed"] == 1
    # A quarter of four items, half of two, stay last; four standard deviations.
    for order, stays in {"shuffled": 1 / 4, "shuffled_read": 1 / 2}.items():
        assert abs(1 - moved[order] - stays) < 4 * np.sqrt(stays * (1 - stays) / USERS)


def test_orders_keep_the_items_and_depend_on_seed_and_user_alone():
    histories = [np.arange(length) for length in (1, 2, 8, 9)]
    users = np.array([4, 5, 6, 7])
    found = reordered(histories, users, max_history=3, seed=SEED)
    for order in found.values():
        assert [sorted(one.tolist()) for one in order] == [one.tolist() for one in histories]
    assert (found["reversed"][2] == histories[2][::-1]).all()
    read = found["shuffled_read"]
    assert (read[3][:6] == histories[3][:6]).all()
    assert any((read[row] != histories[row]).any() for row in (2, 3))
    some = reordered(histories[2:], users[2:], max_history=3, seed=SEED)
    assert (some["shuffled"][0] == found["shuffled"][2]).all()
    other = reordered(histories, users, max_history=3, seed=SEED + 1)
    assert (other["shuffled"][3] != found["shuffled"][3]).any()
    assert set(reordered(histories, users, max_history=9, seed=SEED)) == {"shuffled", "reversed"}


def test_users_are_drawn_by_the_seed_and_fewer_are_some_of_more(split):
    many, few = (draw_users(split, count, seed=SEED, batch_size=8) for count in (20, 5))
    assert len(many) == 20 and len(few) == 5 and set(few.rows) < set(many.rows)
    assert set(draw_users(split, 20, seed=SEED + 1, batch_size=8).rows) != set(many.rows)
    assert len(draw_users(split, 10**6, seed=SEED, batch_size=8)) == USERS
    assert few.protocol == "full"


def test_where_candidates_are_stated_the_target_is_ranked_among_them(split):
    targets = split.target("valid")
    candidates = np.stack([NEXT[targets], targets, NEXT[NEXT[targets]]], axis=1)
    users = draw_users(split, 12, seed=SEED, candidates=candidates, batch_size=8)
    assert users.protocol == "sampled-3"
    ranks = users.ranks(asked_recommender(after_the_last, 4, users)(users.histories), "last")
    assert (ranks == 1).all()
    behind = users.ranks(
        asked_recommender(lambda h: -after_the_last(h), 4, users)(users.histories), "first"
    )
    assert (behind == 3).all()


PROMPT = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
GUIDES = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)


def test_the_only_slot_that_matters_is_found():
    """A measure that reads slot 2 alone, another for each user."""
    wanted = PROMPT[2]

    def likeness(prompt):
        return GUIDES @ (prompt[2] * wanted)

    rows = slot_ablation(PROMPT, {"likeness": likeness}, seed=SEED)
    assert len(rows) == 8
    for row in rows:
        changes = (row["change"], row["change_low"], row["change_high"])
        assert any(changes) == (row["slot"] == 2)
        if row["slot"] == 2:
            others = PROMPT[[0, 1, 3]].mean(0) if row["replaced_by"] == "mean" else 0 * wanted
            expected = (GUIDES @ (others * wanted) - GUIDES @ wanted**2).mean()
            assert row["change"] == pytest.approx(expected, rel=1e-4)
    alone = slot_ablation(PROMPT[:1], {"sum": lambda prompt: GUIDES @ prompt[0]}, seed=SEED)
    assert [row["replaced_by"] for row in alone] == ["zero"]


@pytest.mark.parametrize("replacement", ["mean", "zero"])
def test_a_slot_that_depends_on_the_user_is_replaced_for_each(replacement):
    rng = np.random.default_rng(4)
    shapes = {"down": (3, 2), "up": (2, 4, 3), "shared": (4, 3)}
    prompt = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    whole = np.asarray(slot_rows(prompt, GUIDES))  # [B, K, D]
    expected = whole.copy()
    expected[:, 1] = whole[:, [0, 2, 3]].mean(1) if replacement == "mean" else 0
    found = without_slot(prompt, 1, replacement)
    np.testing.assert_allclose(slot_rows(found, GUIDES), expected, atol=1e-5)
    assert (np.asarray(slot_rows(prompt, GUIDES)) == whole).all(), "the prompt itself has changed"


def test_a_copy_of_a_word_is_nearest_to_that_word():
    table = np.random.default_rng(5).normal(size=(50, 16)).astype(np.float32)
    slots = np.stack([3 * table[17], -table[4]])
    found = nearest_words(slots, table[[17, 9]], table, lambda token: f"w{token}", seed=SEED)
    first, second = found["slots"]
    assert first["words"][0]["text"] == "w17" and len(first["words"]) == 5
    assert first["words"][0]["cosine"] == pytest.approx(1) == first["start"]
    assert first["norm"] == pytest.approx(3 * np.linalg.norm(table[17]), rel=1e-6)
    cosines = [word["cosine"] for word in first["words"]]
    assert cosines == sorted(cosines, reverse=True)
    # The opposite of a word is as near to others as any direction is, and the control says how near that is.
    assert "w4" not in [word["text"] for word in second["words"]]
    assert 0 < found["random"]["mean"] < found["random"]["p95"] < 1
    assert found["random"]["draws"] == DRAWS and found["tokens"] == 50


def test_the_own_prompt_under_another_name_gives_the_own_figures():
    def carried(prompt):
        return CarriedPrompt(np.arange(4, dtype=np.int32), prompt, PROMPT - 1)

    prompts = {OWN: carried(PROMPT), "again": carried(PROMPT.copy()), "other": carried(PROMPT + 1)}
    rows = prompt_transfer(prompts, {"m": lambda one: GUIDES @ one.prompt.sum(0)}, seed=SEED)
    found = {row["prompt"]: {**row, "prompt": ""} for row in rows}
    assert found[OWN] == found["again"] and found[OWN]["change"] == 0
    assert found["other"]["value"] != found[OWN]["value"]
    assert found["other"]["change"] == pytest.approx(
        found["other"]["value"] - found[OWN]["value"], rel=1e-5
    )


def test_cosines_of_prompts_slot_by_slot():
    slots = np.eye(3, 5, dtype=np.float32)
    pattern, start = np.arange(3, dtype=np.int32), np.full((3, 5), 7, np.float32)
    own = CarriedPrompt(pattern, start + slots, start)
    same = prompt_cosines(own, CarriedPrompt(pattern, start + 2 * slots, start))
    # Slots that began alike resemble one another; what training added does not.
    assert same["different"] > 0.9 and same["added_different"] == pytest.approx(0)
    assert same["added_same"] == pytest.approx(1)
    still = prompt_cosines(own, CarriedPrompt(pattern, start, start))
    assert set(still) == {"same", "different"}
    assert prompt_cosines(own, CarriedPrompt(pattern[:2], start[:2], start[:2])) is None
    assert prompt_cosines(own, CarriedPrompt(pattern, {"up": start}, start)) is None


def test_a_change_from_nothing_has_no_ratio():
    nothing, some = np.zeros(4), np.array([0.0, 1, 0, 1])
    assert changed(nothing, some, seed=SEED)["relative"] is None
    assert changed(some, nothing, seed=SEED)["relative"] == -1
