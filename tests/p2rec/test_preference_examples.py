"""Examples of information reconstruction: text and target of the same items, and parts of histories."""

import numpy as np
import pytest
from test_preference_texts import CLOSING, TITLES, make

from delrec_jax.config import ParseConfig
from delrec_jax.data.pipeline import collate
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.p2rec.categories import Categories
from delrec_jax.p2rec.preference_examples import PreferenceExamples, drawn_history, pooled
from delrec_jax.p2rec.preference_text import preference_pieces

# Alien, Casino: 0; Big Fish, Dune: 1; Enemy Mine: 2.
CATEGORIES = Categories(np.array([0, 1, 0, 1, 2], np.int32), np.zeros((3, 2), np.float32))
OPENING = 9  # "The user has watched these movies in order :"
TEMPLATE = OPENING + len(CLOSING.split())


def examples(**settings):
    config = ParseConfig(**settings)
    vocabulary, pieces = make(PromptConfig())
    made = PreferenceExamples(preference_pieces(pieces, config, 20), config, CATEGORIES)
    return vocabulary, made


def test_the_target_is_that_of_the_items_that_are_left_of_a_long_history():
    # Alien ; Casino ; Big Fish ; Enemy Mine takes 1 + 1 + 2 + 2 tokens and three separators.
    history = np.array([0, 2, 1, 4], np.int32)
    for room, target in (
        (9, [2, 1, 1]),
        (8, [1, 1, 1]),
        (6, [0, 1, 1]),
        (5, [0, 1, 1]),
        (4, [0, 0, 1]),
    ):
        vocabulary, made = examples(max_tokens=TEMPLATE + room)
        found = made.of(history)
        np.testing.assert_allclose(found.targets, np.array(target) / sum(target))
        words = vocabulary.decode(found.ids)
        assert [title in words for title in TITLES[:3]] == [
            target[0] == 2,
            target[1] > 0,
            target[0] > 0,
        ]


def test_what_is_pooled():
    vocabulary, made = examples(pool="titles")
    found = made.of(np.array([1, 4]))
    assert vocabulary.decode(found.ids[found.counted == 1]) == "Big Fish Enemy Mine"
    _, made = examples(pool="text")
    assert made.of(np.array([1, 4])).counted.tolist() == [1] * len(found.ids)


def test_batches_pad_both():
    _, made = examples()
    some = [made.of(np.array([1, 4])), made.of(np.array([3]))]
    batch = collate(some, (32, 48))
    assert batch.ids.shape == batch.counted.shape == (2, 32)
    assert batch.counted.sum(axis=1).tolist() == [4, 1] and batch.targets.shape == (2, 3)


def test_texts_are_read_in_batches_of_like_lengths_and_found_in_their_order():
    _, made = examples()
    some = [made.of(np.array(items)) for items in ([1, 4], [3], [1, 2, 3, 4], [2])]
    read = []

    def score(batch):
        read.append(batch.ids.shape)
        return np.stack([batch.ids.sum(axis=1), batch.counted.sum(axis=1)], axis=1)

    found = pooled(score, some, batch_size=3, longest=64)
    wanted = [[one.ids.sum(), one.counted.sum()] for one in some]
    assert found.tolist() == wanted and [shape[0] for shape in read] == [3, 3]
    assert pooled(score, some[:1], batch_size=3, longest=64).tolist() == wanted[:1]


def test_parts_of_histories_are_runs_of_every_length_and_short_ones_are_frequent():
    history, rng = np.arange(15), np.random.default_rng(0)
    drawn = [drawn_history(history, 1.0, rng) for _ in range(4000)]
    lengths = np.bincount([len(part) for part in drawn], minlength=16)
    assert all(np.array_equal(part, np.arange(part[0], part[0] + len(part))) for part in drawn)
    assert (lengths[1:] > 0).all() and lengths[0] == 0
    # 1, 2 to 3, 4 to 7, 8 to 15: a quarter each.
    for first in (1, 2, 4, 8):
        assert lengths[first : 2 * first].sum() / 4000 == pytest.approx(0.25, abs=0.03)
    ones = np.bincount([part[0] for part in drawn if len(part) == 1], minlength=15)
    assert ones.min() > 30  # anywhere in the history
    assert [len(drawn_history(history[:1], 1.0, rng)) for _ in range(9)] == [1] * 9


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_parts_and_one_draw_makes_one_example(share):
    _, made = examples(sub_histories=share)
    history = np.array([0, 1, 2, 3, 4, 0, 1, 2], np.int32)
    whole = made.of(history)
    drawn = [made.drawn(history, np.random.default_rng(seed)) for seed in range(400)]
    cut = np.mean([len(one.ids) < len(whole.ids) for one in drawn])
    # Of the parts, those of full length are no cut: log(9 / 8) / log(9).
    assert cut == pytest.approx(share * (1 - np.log(9 / 8) / np.log(9)), abs=0.08)
    for seed in (0, 7):
        again = made.drawn(history, np.random.default_rng(seed))
        np.testing.assert_array_equal(again.ids, drawn[seed].ids)
        np.testing.assert_array_equal(again.targets, drawn[seed].targets)
