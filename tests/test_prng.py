import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.prng import drawing, generator, key
from delrec_jax.training.loop_config import LoopConfig


def bits(*arguments):
    return tuple(jax.random.key_data(key(*arguments)).tolist())


def draws(*arguments):
    return tuple(generator(*arguments).integers(0, 2**32, 4).tolist())


def test_streams_are_the_same_in_every_process_and_version():
    # Pinned: a change of these numbers makes every stored candidate file and checkpoint stale.
    assert bits(0, "dropout", 3) == (973963574, 3032040930)
    assert draws(0, "candidates", 7)[:2] == (272453533, 2094256163)


def test_the_hardware_can_draw_a_streams_numbers():
    first, second = key(0, "dropout", 3), key(0, "dropout", 4)
    assert drawing(first, "threefry") is first
    drawn = [jax.random.bits(drawing(of, "rbg"), (3,)).tolist() for of in (first, first, second)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(UserError, match=r"loop.random_bits is 'mt': use one of threefry, rbg"):
        LoopConfig(random_bits="mt")


DISTINCT = [
    (0, "dropout", 2),
    (1, "dropout", 2),
    (0, "shuffle", 2),
    (0, "dropout", 1),
    (0, "dropout", 1, 2),
    (0, "dropout", 2, 1),
]


def test_seed_name_and_each_counter_make_another_stream():
    assert len({bits(*a) for a in DISTINCT}) == len(DISTINCT)
    assert len({draws(*a) for a in DISTINCT}) == len(DISTINCT)


def test_a_counter_of_zero_is_another_stream_than_no_counter():
    zeros = [(3, "dropout"), (3, "dropout", 0), (3, "dropout", 0, 0)]
    assert len({bits(*a) for a in zeros}) == len(zeros)
    # NumPy's seed sequence pads with zeros: the number of counters must be part of the seed.
    assert len({draws(*a) for a in zeros}) == len(zeros)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1), name=st.text(max_size=8), counter=st.integers(0, 2**31 - 1))
def test_a_stream_does_not_depend_on_what_was_drawn_before(seed, name, counter):
    first = bits(seed, name, counter), draws(seed, name, counter)
    generator(seed, "another").random(5)
    jax.random.normal(key(seed, "another"), (5,))
    assert (bits(seed, name, counter), draws(seed, name, counter)) == first


def test_counters_can_be_traced():
    steps = jax.vmap(lambda step: jax.random.key_data(key(5, "dropout", step)))(np.arange(3))
    assert [tuple(row) for row in steps.tolist()] == [bits(5, "dropout", i) for i in range(3)]
