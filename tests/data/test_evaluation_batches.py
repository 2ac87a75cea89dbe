"""Batches of texts for evaluation hold each text once, and texts are padded alike only where all are short."""

from typing import Any

import numpy as np
import pytest

from delrec_jax.batches import batch_type
from delrec_jax.data.evaluation_batches import ALIKE, padded_batches, padding_of

BUCKETS = (32, 64, 128, 256, 384, 512)


@batch_type
class Text:
    """A text, and its place."""

    ids: Any
    index: Any


def texts(*lengths):
    return [
        Text(ids=np.full(length, 1 + place), index=np.int32(place))
        for place, length in enumerate(lengths)
    ]


def test_short_texts_are_in_order_and_of_one_shape():
    batches = list(padded_batches(texts(3, 40, 20, 5, 9), batch_size=3, buckets=BUCKETS))
    assert [places.tolist() for _, places in batches] == [[0, 1, 2], [3, 4]]
    np.testing.assert_array_equal(batches[0][0].index, [0, 1, 2])
    np.testing.assert_array_equal(batches[1][0].index, [3, 4, 4])  # the last is repeated
    # Although the texts of the second batch alone would fit a smaller bucket.
    assert [batch.ids.shape for batch, _ in batches] == [(3, 64), (3, 64)]


def test_long_texts_come_last_and_alone_are_padded_to_their_length():
    lengths = (3, 500, 257, 40, 300, 9, 260)
    batches = list(padded_batches(texts(*lengths), batch_size=2, buckets=BUCKETS))
    assert [places.tolist() for _, places in batches] == [[0, 5], [3, 2], [6, 4], [1]]
    assert [batch.ids.shape[1] for batch, _ in batches] == [ALIKE, 384, 384, 512]
    for batch, places in batches:
        for row, place in zip(batch.ids, places, strict=False):
            assert (row > 0).sum() == lengths[place] and row[0] == place + 1


def test_no_texts_make_no_batches():
    assert list(padded_batches([], batch_size=2, buckets=BUCKETS)) == []


@pytest.mark.parametrize(
    ("lengths", "least", "order"),
    [
        ([7, 3, 200], 200, None),
        ([7, 256, 3], 256, None),
        ([300, 380, 270], 256, None),  # of one bucket
        ([300, 7, 270, 500], 256, [1, 2, 0, 3]),
        ([], 0, None),
    ],
)
def test_when_an_order_is_better(lengths, least, order):
    found = padding_of(np.array(lengths, int), BUCKETS)
    assert found.least == least
    assert (None if found.order is None else found.order.tolist()) == order
