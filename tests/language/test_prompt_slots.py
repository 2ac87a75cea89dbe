"""The soft prompt: which places take its rows, what gets a gradient, how it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.language.soft_prompt import (
    INITS,
    embed_with_prompt,
    init_guided,
    init_prompt,
    slot_ids,
    slot_rows,
)
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import hidden_at_masks

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)

TABLE = jnp.arange(15.0).reshape(5, 3)
PROMPT = -1 - jnp.arange(12.0).reshape(4, 3)
# Slots (5 to 8) out of order, one of them twice, none for row 3 of the prompt.
IDS = jnp.asarray([[0, 4, 5, 7, 2], [6, 1, 1, 5, 5]])


@pytest.mark.parametrize("kind", INITS)
def test_a_prompt_trains_in_float32_whatever_the_model_is_in(kind):
    half, key = TABLE.astype(jnp.bfloat16), jax.random.key(0)
    assert init_prompt(kind, half, 3, key, text_ids=[1]).dtype == jnp.float32
    assert {row.dtype for row in init_guided(half, 3, 2, key).values()} == {jnp.dtype("float32")}


def test_slot_ids_follow_the_vocabulary():
    assert slot_ids(32128, 3) == [32128, 32129, 32130]


def test_slots_and_only_slots_take_rows_of_the_prompt():
    t, p = np.asarray(TABLE), np.asarray(PROMPT)
    expected = [[t[0], t[4], p[0], p[2], t[2]], [p[1], t[1], t[1], p[0], p[0]]]
    np.testing.assert_array_equal(embed_with_prompt(TABLE, PROMPT, IDS), expected)


def test_without_a_prompt_it_is_the_table():
    words = jnp.asarray([[0, 4, 2]])
    np.testing.assert_array_equal(embed_with_prompt(TABLE, None, words), TABLE[words])
    np.testing.assert_array_equal(embed_with_prompt(TABLE, PROMPT, words), TABLE[words])


@pytest.mark.parametrize("embed", [embed_with_prompt, jax.jit(embed_with_prompt)])
def test_a_slot_without_a_row_is_nan_and_no_other_row(embed):
    missing = np.asarray(len(TABLE) <= IDS)
    assert (np.isnan(embed(TABLE, None, IDS)).all(-1) == missing).all()
    short = np.isnan(embed(TABLE, PROMPT[:2], IDS)).all(-1)
    assert (short == np.asarray(len(TABLE) + 2 <= IDS)).all() and short.any()
    assert not np.isnan(embed(TABLE, PROMPT, IDS)).any()


def test_gradients_of_slots_reach_the_prompt_and_those_of_words_the_table():
    weights = jnp.asarray([[1.0, 2, 4, 8, 16], [32, 64, 128, 256, 512]])[..., None]

    def loss(table, prompt):
        return (weights * embed_with_prompt(table, prompt, IDS)).sum()

    to_table, to_prompt = jax.grad(loss, argnums=(0, 1))(TABLE, PROMPT)
    # The last word's row stands in for slots while looking up: it must get its own 2 alone.
    np.testing.assert_array_equal(to_table[:, 0], [1, 64 + 128, 16, 0, 2])
    np.testing.assert_array_equal(to_prompt[:, 0], [4 + 256 + 512, 32, 8, 0])


def test_the_prompt_steers_the_model_and_gets_its_gradient_there(gated):
    config, params = gated
    module, asked = T5(config), jnp.asarray([[39]])
    prompt = jax.random.normal(jax.random.key(0), (4, config.d_model))
    ids = jnp.asarray([[5, *slot_ids(config.vocab_size, 3), 39, 1]])

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(prompt):
        return (hidden_at_masks(module, params, ids, asked, prompt=prompt) ** 2)[0, 0, 0]

    grads = loss_and_gradient(prompt)[1]
    assert (np.abs(grads[:3]).max(-1) > 1e-4).all()
    assert (grads[3] == 0).all()  # row 3 has no slot in the text
    step = 1e-2 * jax.random.normal(jax.random.key(1), prompt.shape)
    slope = (loss_and_gradient(prompt + step)[0] - loss_and_gradient(prompt - step)[0]) / 2
    np.testing.assert_allclose(slope, (grads * step).sum(), rtol=0.05)


def test_a_prompt_of_table_rows_equals_the_words(gated):
    config, params = gated
    words = jnp.asarray([[5, 8, 9, 39, 1]])
    slots = jnp.asarray([[5, *slot_ids(config.vocab_size, 2), 39, 1]])
    prompt = params["shared"]["embedding"][jnp.asarray([8, 9])]
    module, asked = T5(config), jnp.asarray([[39]])
    plain = HIDDEN(module, params, words, asked)
    spliced = HIDDEN(module, params, slots, asked, prompt=prompt)
    np.testing.assert_allclose(spliced, plain, atol=1e-6)


def test_normal_prompts_have_the_tables_moments():
    table = 3 + 0.5 * jax.random.normal(jax.random.key(0), (50, 40))
    prompt = init_prompt("normal", table, 100, jax.random.key(1))
    assert prompt.shape == (100, 40)
    np.testing.assert_allclose(prompt.mean(), 3, atol=0.05)
    np.testing.assert_allclose(prompt.std(), 0.5, atol=0.05)
    assert np.unique(prompt, axis=0).shape[0] == 100


def test_vocabulary_prompts_are_different_rows_of_the_table():
    prompt = np.asarray(init_prompt("vocabulary", TABLE, 4, jax.random.key(1)))
    rows = {tuple(row) for row in prompt.tolist()}
    assert len(rows) == 4
    assert rows <= {tuple(row) for row in TABLE.tolist()}
    other = np.asarray(init_prompt("vocabulary", TABLE, 4, jax.random.key(2)))
    assert (prompt != other).any()


@pytest.mark.parametrize(
    ("length", "rows"), [(2, [3, 1]), (3, [3, 1, 4]), (7, [3, 1, 4, 3, 1, 4, 3])]
)
def test_text_prompts_repeat_the_words(length, rows):
    prompt = init_prompt("text", TABLE, length, jax.random.key(0), text_ids=[3, 1, 4])
    np.testing.assert_array_equal(prompt, TABLE[jnp.asarray(rows)])


@pytest.mark.parametrize("text_ids", [None, []])
def test_text_prompts_need_words(text_ids):
    with pytest.raises(UserError, match=r"distill.init is 'text' but distill.init_text is empty"):
        init_prompt("text", TABLE, 2, jax.random.key(0), text_ids=text_ids)


def test_more_slots_than_rows_are_refused():
    with pytest.raises(UserError, match=r"the prompt has 6 slots and the table 5 rows"):
        init_prompt("vocabulary", TABLE, 6, jax.random.key(0))


def test_an_unknown_start_is_named():
    with pytest.raises(UserError, match=r"distill.init is 'zeros': use one of normal"):
        init_prompt("zeros", TABLE, 2, jax.random.key(0))


def test_each_text_can_have_slots_of_its_own():
    prompts = np.stack([PROMPT + row for row in range(len(IDS))])
    found = embed_with_prompt(TABLE, prompts, IDS)
    for row, ids in enumerate(IDS):
        alone = embed_with_prompt(TABLE, prompts[row], ids[None])
        np.testing.assert_array_equal(found[row], alone[0])


@pytest.mark.parametrize("shared", [False, True])
def test_slots_that_know_the_user_are_a_map_of_their_guides(shared):
    rng = np.random.default_rng(0)
    guides = rng.normal(size=(3, 4))
    prompt = {"down": rng.normal(size=(4, 2)), "up": rng.normal(size=(2, 5, 4))}
    if shared:
        prompt["shared"] = rng.normal(size=(5, 4))
    found = slot_rows(prompt, guides)
    for row, guide in enumerate(guides):
        for slot in range(5):
            wanted = guide @ prompt["down"] @ prompt["up"][:, slot]
            wanted = wanted + (prompt["shared"][slot] if shared else 0)
            np.testing.assert_allclose(found[row, slot], wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="what the teacher expects"):
        slot_rows(prompt, None)


def test_a_prompt_of_the_same_rows_for_all_reads_no_guide():
    assert slot_rows(PROMPT, None) is PROMPT and slot_rows(None, None) is None


def test_untrained_slots_that_know_the_user_are_as_large_as_tokens():
    table = jax.random.normal(jax.random.key(0), (200, 32)) * 0.05
    prompt = init_guided(table, 6, 16, jax.random.key(1))
    guides = np.random.default_rng(0).normal(size=(64, 32))
    slots = slot_rows(prompt, guides / np.linalg.norm(guides, axis=1, keepdims=True))
    assert slots.shape == (64, 6, 32)
    np.testing.assert_allclose(np.std(slots), 0.05, rtol=0.15)
