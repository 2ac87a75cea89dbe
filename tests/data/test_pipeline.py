import copy
import dataclasses
import json
from itertools import chain, pairwise
from typing import Any

import chex
import grain
import jax
import numpy as np
import pytest

from delrec_jax.batches import Share, batch_type
from delrec_jax.data.pipeline import (
    batch_iterator,
    bucket_length,
    collate,
    make_buckets,
    pad_texts,
    row_iterator,
    training_iterator,
)
from delrec_jax.errors import UserError

BUCKETS = (4, 8)


@batch_type
class Row:
    ids: Any
    index: Any
    draw: Any


def example(index, rng):
    """A text of 1 to 7 tokens that says where it comes from, and a random draw."""
    return Row(
        ids=np.full(1 + index % 7, index + 1, np.int32),
        index=np.int32(index),
        draw=np.float32(rng.random()),
    )


def iterator(seed=0, make=example, batch_size=3, num=10, buckets=BUCKETS, **process):
    return training_iterator(
        make, num, batch_size=batch_size, buckets=buckets, seed=seed, **process
    )


def take(source, count):
    return [next(source) for _ in range(count)]


def test_bucket_length():
    assert [bucket_length(n, BUCKETS) for n in (0, 1, 4, 5, 8)] == [4, 4, 4, 8, 8]
    with pytest.raises(ValueError, match="9 tokens exceeds the largest bucket 8"):
        bucket_length(9, BUCKETS)


def test_make_buckets_by_hand():
    assert make_buckets(300) == (32, 48, 64, 96, 128, 192, 256, 320)
    assert make_buckets(1065)[-3:] == (768, 1024, 1088)
    assert make_buckets(32) == (32,)
    assert make_buckets(33) == (32, 48)
    assert make_buckets(10, smallest=4) == (4, 6, 8, 12)


def test_buckets_that_cannot_grow_are_refused():
    assert make_buckets(5, smallest=2) == (2, 3, 4, 6)
    for smallest in (1, 0, -4):
        with pytest.raises(ValueError, match=f"the smallest bucket is {smallest}: .* at least 2"):
            make_buckets(5, smallest=smallest)


@pytest.mark.parametrize("longest", [1, 31, 32, 33, 512, 1065])
def test_buckets_hold_the_longest_and_grow_by_half_at_most(longest):
    buckets = make_buckets(longest)
    assert longest <= buckets[-1]
    assert len(buckets) == 1 or buckets[-2] < longest
    for small, large in pairwise(buckets):
        assert large % 16 == 0 and small < large <= 1.5 * small


def test_pad_texts():
    texts = [np.array([5, 6], np.int32), np.array([], np.int32), np.array([7, 8, 9], np.int32)]
    padded = pad_texts(texts, 4)
    np.testing.assert_array_equal(padded, [[5, 6, 0, 0], [0, 0, 0, 0], [7, 8, 9, 0]])
    assert padded.dtype == np.int32


def test_collate_pads_texts_to_the_bucket_of_the_longest():
    rng = np.random.default_rng(0)
    short = collate([example(0, rng), example(3, rng)], BUCKETS)
    np.testing.assert_array_equal(short.ids, [[1, 0, 0, 0], [4, 4, 4, 4]])
    np.testing.assert_array_equal(short.index, [0, 3])
    assert collate([example(0, rng), example(4, rng)], BUCKETS).ids.shape == (2, 8)


def test_a_field_that_some_examples_lack_is_refused():
    rng = np.random.default_rng(0)
    whole, bare = example(0, rng), dataclasses.replace(example(1, rng), index=None)
    for rows in ([whole, bare], [bare, whole]):
        with pytest.raises(ValueError, match="1 of 2 examples have no index"):
            collate(rows, BUCKETS)
    assert collate([bare, bare], BUCKETS).index is None


def test_one_epoch_meets_every_example_once_and_the_next_one_in_another_order():
    batches = take(iterator(batch_size=5), 4)
    seen = np.concatenate([batch.index for batch in batches])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(range(10))
    assert list(seen[:10]) != list(seen[10:])


def test_same_seed_same_stream_other_seed_other_stream():
    chex.assert_trees_all_equal(take(iterator(), 12), take(iterator(), 12), strict=True)
    a, b = take(iterator(seed=0), 4), take(iterator(seed=1), 4)
    assert any((x.index != y.index).any() for x, y in zip(a, b, strict=True))
    assert all((x.draw != y.draw).all() for x, y in zip(a, b, strict=True))


def test_draws_differ_between_epochs():
    batches = take(iterator(batch_size=10), 2)
    order = [np.argsort(batch.index) for batch in batches]
    first, second = (batch.draw[o] for batch, o in zip(batches, order, strict=True))
    assert (first != second).all()


def test_the_stream_of_examples_does_not_depend_on_how_it_is_cut_into_batches():
    threes, sixes = take(iterator(batch_size=3), 4), take(iterator(batch_size=6), 2)
    for name in ("index", "draw"):
        np.testing.assert_array_equal(
            *(np.concatenate([getattr(b, name) for b in many]) for many in (threes, sixes))
        )


def test_an_example_is_a_pure_function_of_its_index_and_generator():
    calls = []

    def spying(index, rng):
        before = copy.deepcopy(rng)
        made = example(index, rng)
        calls.append((index, before, made))
        return made

    batch = next(iterator(make=spying, batch_size=10))
    # The prefetcher runs ahead into later epochs: the first ten calls made the first batch.
    by_index = {index: (rng, made) for index, rng, made in calls[:10]}
    assert sorted(by_index) == list(range(10))
    for row, index in enumerate(batch.index.tolist()):
        rng, made = by_index[index]
        assert example(index, rng).draw == made.draw == batch.draw[row]


@pytest.mark.parametrize("done", [0, 1, 5, 9])
def test_a_fresh_iterator_goes_on_where_the_state_was_taken(done):
    whole = take(iterator(), 12)
    first = iterator()
    take(first, done)
    state = json.loads(json.dumps(first.get_state()))  # a checkpoint stores it as JSON
    fresh = iterator()
    take(fresh, 2)  # wherever it stood before
    fresh.set_state(state)
    chex.assert_trees_all_equal(take(fresh, 12 - done), whole[done:], strict=True)


def test_the_stream_of_one_process_is_the_one_that_grain_alone_makes():
    """Shuffle, repeat, draw, batch: what a checkpoint of an older version goes on with."""
    plain = (
        grain.MapDataset.range(10)
        .seed(4)
        .shuffle()
        .repeat(None)
        .random_map(lambda index, rng: example(int(index), rng))
        .batch(3, batch_fn=lambda examples: collate(examples, BUCKETS))
    )
    older, ours = iter(plain.to_iter_dataset()), iterator(seed=4)
    chex.assert_trees_all_equal(take(ours, 12), take(older, 12), strict=True)
    assert ours.get_state() == older.get_state()


@pytest.mark.parametrize("lengths_stay", [False, True])
@pytest.mark.parametrize("buckets", [BUCKETS, (8,), (6, 7, 50)])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_shards_of_all_processes_are_the_batch_of_one(count, buckets, lengths_stay):
    whole = take(iterator(batch_size=6, buckets=buckets), 8)
    own = {"batch_size": 6, "buckets": buckets, "lengths_stay": lengths_stay}
    shards = [take(iterator(share=Share((index,), count), **own), 8) for index in range(count)]
    assert {shard.index.shape for batches in shards for shard in batches} == {(6 // count,)}
    together = [
        jax.tree.map(lambda *parts: np.concatenate(parts), *step)
        for step in zip(*shards, strict=True)
    ]
    chex.assert_trees_all_equal(together, whole, strict=True)
    # Some process has short texts alone, and still the shape that the others' texts need.
    longest = [np.count_nonzero(b.ids, axis=1).max() for batches in shards for b in batches]
    assert count == 1 or min(longest) <= 4


def test_a_process_makes_no_examples_of_others_where_the_shape_is_known():
    made = []

    def spying(index, rng):
        made.append(index)
        return example(index, rng)

    alone = take(iterator(batch_size=6, num=12), 2)
    next(iterator(make=spying, batch_size=6, num=12, buckets=(8,), share=Share((1,), 2)))
    assert made[:3] == alone[0].index[3:].tolist()
    assert set(made[3:6]) <= set(alone[1].index[3:].tolist())


def made_by(count, buckets, lengths_stay=False):
    """Numbers of the examples that the second of two processes makes for so many batches, and the number of all calls."""
    made = []

    def spying(index, rng):
        made.append(index)
        return example(index, rng)

    process = {"share": Share((1,), 2), "lengths_stay": lengths_stay}
    source = iterator(make=spying, batch_size=4, num=12, buckets=buckets, **process)
    take(source, count)
    source.close()
    return made


def test_of_the_texts_of_others_only_lengths_that_decide_the_shape_are_made():
    """The prefetcher makes a few batches more than are taken, so the calls of the first batches are looked at."""
    alone = [batch.index.tolist() for batch in take(iterator(batch_size=4, num=12), 30)]
    # Under these buckets, texts of 5 tokens and more, of the index modulo 7 from 4, decide.
    expected = []
    for batch in alone:
        own, others = batch[2:], batch[:2]
        expected += own
        for index in others:
            if max(1 + i % 7 for i in (*own, *others[: others.index(index)], 0)) > 4:
                break
            expected.append(index)
    found = made_by(30, BUCKETS)
    assert found[: len(expected)] == expected and len(expected) < 30 * 4


def test_lengths_that_stay_are_asked_for_once():
    far = (7, 50)  # no text needs the last bucket, so all lengths of a batch are looked at
    assert len(made_by(30, far)) >= 30 * 4
    found = made_by(30, far, lengths_stay=True)
    alone = [batch.index.tolist() for batch in take(iterator(batch_size=4, num=12), 40)]
    own = [index for batch in alone for index in batch[2:]]
    beside = list(found)
    for index in own[: 30 * 2]:
        beside.remove(index)
    # What is left are 12 lengths at most, and rows of batches that the prefetcher made ahead.
    assert len(beside) <= 12 + 2 * 10


def test_batches_of_a_group_share_out_their_texts_by_length():
    """Batches of 3 in groups of 4: each group has the examples it has otherwise, and each batch texts of about one length."""
    plain, grouped = (take(iterator(num=60, group=group), 20) for group in (0, 4))
    apart = []
    for first in range(0, 20, 4):
        ours, theirs = (
            [
                sorted(zip(b.index.tolist(), b.draw.tolist(), strict=True))
                for b in batches[first : first + 4]
            ]
            for batches in (grouped, plain)
        )
        assert sorted(chain(*ours)) == sorted(chain(*theirs))
        lengths = [[1 + index % 7 for index, _ in batch] for batch in ours]
        ordered = sorted(lengths, key=lambda of: (min(of), max(of)))
        assert all(max(a) <= min(b) for a, b in pairwise(ordered))
        apart.append(lengths != ordered)
    assert any(apart)  # the batches of a group come in random order
    padding = [sum(b.ids.shape[1] for b in batches) for batches in (plain, grouped)]
    assert padding[1] < padding[0]


@pytest.mark.parametrize("lengths_stay", [False, True])
def test_groups_by_length_are_shared_by_processes_and_resumed(lengths_stay):
    own = {"batch_size": 4, "num": 24, "group": 3, "lengths_stay": lengths_stay}
    whole = take(iterator(**own), 9)
    for index in (0, 1):
        first = iterator(share=Share((index,), 2), **own)
        take(first, 4)
        state = json.loads(json.dumps(first.get_state()))
        fresh = iterator(share=Share((index,), 2), **own)
        fresh.set_state(state)
        rows = slice(2 * index, 2 * index + 2)
        ours = jax.tree.map(lambda array: array[rows], whole[4:])  # noqa: B023
        chex.assert_trees_all_equal(take(fresh, 5), ours, strict=True)


@pytest.mark.parametrize("buckets", [BUCKETS, (8,)])
def test_two_processes_resume_midway_and_one_can_take_over(buckets):
    whole = take(iterator(batch_size=4, buckets=buckets), 9)
    for index in (0, 1):
        process = {"share": Share((index,), 2)}
        first = iterator(batch_size=4, buckets=buckets, **process)
        take(first, 4)
        state = json.loads(json.dumps(first.get_state()))
        fresh = iterator(batch_size=4, buckets=buckets, **process)
        next(fresh)
        fresh.set_state(state)
        rows = slice(2 * index, 2 * index + 2)
        expected = [jax.tree.map(lambda leaf, rows=rows: leaf[rows], b) for b in whole[4:]]
        chex.assert_trees_all_equal(take(fresh, 5), expected, strict=True)
    one = iterator(batch_size=4, buckets=buckets)
    one.set_state(state)
    chex.assert_trees_all_equal(take(one, 5), whole[4:], strict=True)


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(UserError, match=r"batch_size is 6, of all 4 parts .* multiple of 4"):
        iterator(batch_size=6, share=Share((0,), 4))
    for index, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=rf"blocks \({index},\) of {count}"):
            iterator(batch_size=6, share=Share((index,), count))


def test_whole_batches_resume_too():
    def make(index, rng):
        return Row(ids=np.zeros(1), index=index, draw=rng.random(3))

    whole = take(batch_iterator(make, seed=4), 6)
    draws = np.concatenate([batch.draw for batch in whole])
    assert len(set(draws.tolist())) == 18
    assert [batch.index for batch in whole] == list(range(6))
    assert (next(batch_iterator(make, seed=5)).draw != whole[0].draw).all()
    first = batch_iterator(make, seed=4)
    take(first, 4)
    fresh = batch_iterator(make, seed=4)
    fresh.set_state(json.loads(json.dumps(first.get_state())))
    chex.assert_trees_all_equal(take(fresh, 2), whole[4:], strict=True)


def rows_of(seed=0, batch_size=4, **process):
    """Batches over ten rows that say their number twice."""
    table = Row(ids=np.arange(10)[:, None] * [1, 1], index=np.arange(10), draw=-np.arange(10))
    return row_iterator(table, batch_size=batch_size, seed=seed, **process)


def test_rows_are_read_once_per_epoch_in_another_order_each_time():
    batches = take(rows_of(), 10)  # four epochs of ten rows; batches of four reach over their ends
    order = np.concatenate([batch.index for batch in batches]).reshape(4, 10)
    assert (np.sort(order, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in order}) == 4
    for batch in batches:
        np.testing.assert_array_equal(batch.ids, np.stack([batch.index, batch.index], axis=1))
        np.testing.assert_array_equal(batch.draw, -batch.index)
    assert any(
        (a.index != b.index).any() for a, b in zip(batches, take(rows_of(seed=1), 10), strict=True)
    )


def test_a_process_may_have_blocks_that_do_not_follow_one_another():
    """As on a slice of a TPU, whose mesh follows the torus."""
    shares = [Share((0, 3), 6), Share((1, 2, 4, 5), 6)]
    own = {"batch_size": 12, "num": 24}
    whole = take(iterator(**own), 5)
    plain = take(rows_of(batch_size=12), 5)
    for share in shares:
        rows = share.rows(12)
        expected = [jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch) for batch in whole]
        chex.assert_trees_all_equal(take(iterator(share=share, **own), 5), expected, strict=True)
        numbered = take(rows_of(batch_size=12, share=share), 5)
        for batch, found in zip(plain, numbered, strict=True):
            np.testing.assert_array_equal(found.index, batch.index[rows])
        places = [share.place(row, len(rows)) for row in rows.tolist()]
        assert places == list(range(len(rows))) and share.whole(len(rows)) == 12
    assert sorted(np.concatenate([share.rows(12) for share in shares])) == list(range(12))


def test_rows_are_shared_by_processes_and_go_on_where_they_stopped():
    whole = take(rows_of(), 7)
    for count in (2, 4):
        parts = [take(rows_of(share=Share((one,), count)), 7) for one in range(count)]
        for step, batch in enumerate(whole):
            found = np.concatenate([part[step].index for part in parts])
            np.testing.assert_array_equal(found, batch.index)
    first = rows_of(share=Share((0,), 2))
    take(first, 3)
    fresh = rows_of()  # one process goes on for two
    fresh.set_state(json.loads(json.dumps(first.get_state())))
    chex.assert_trees_all_equal(take(fresh, 4), whole[3:], strict=True)
    with pytest.raises(UserError, match="batch_size is 4, of all 3 parts"):
        rows_of(share=Share((0,), 3))
