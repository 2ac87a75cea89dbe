"""The item table: own vectors as ever, or vectors made from text vectors, which are never trained."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_shapes import shapes
from scipy.special import erf

from delrec_jax.teachers import item_table
from delrec_jax.teachers.caser import Caser
from delrec_jax.teachers.item_table import WAYS, ItemTable
from delrec_jax.teachers.losses import LossConfig
from delrec_jax.teachers.network import (
    ITEM_INIT,
    NetworkTeacher,
    axes_of,
    init_params,
    sequence_loss,
)
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.teachers.windows import TrainingRows

ITEMS, WIDTH, COLUMNS = 11, 6, 5
KEY = jax.random.key(0)
TEXT = np.random.default_rng(0).normal(size=(ITEMS, COLUMNS)).astype(np.float32)
SHAPES = shapes(width=WIDTH, max_length=4)
BATCH = TrainingRows(
    items=np.array([[1, 2, 3, 4], [5, 6, 7, 8]]),
    labels=np.array([[2, 3, 4, 5], [6, 7, 8, 9]]),
    segments=np.ones((2, 4), np.int32),
)


class Holder(nn.Module):
    """As a network names its table."""

    way: str
    items_of: int = ITEMS
    width: int = WIDTH

    def setup(self):
        self.items = ItemTable(self.items_of, self.width, self.way)

    def __call__(self):
        return self.items()


class EmbedHolder(nn.Module):
    """The plain table of Flax, that `own` stands for."""

    def setup(self):
        self.items = nn.Embed(ITEMS, WIDTH, embedding_init=ITEM_INIT)

    def __call__(self):
        return self.items(jnp.zeros(1, jnp.int32))


def variables(params, text=TEXT):
    return {"params": params, "text": {"items": {"vectors": text}}}


def started(way, text=TEXT, width=WIDTH):
    """The table of a way at its start, and its parameters."""
    module = Holder(way, len(text), width)
    given = {"text": {"items": {"vectors": text}}}
    rngs = {"params": KEY}
    table, found = module.apply(given, rngs=rngs, mutable=["params"])
    return np.asarray(table), found["params"]["items"]


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("way", ["own", "initialise"])
def test_an_own_table_is_the_embedding_of_flax_to_the_bit(way):
    expected = EmbedHolder().init(jax.random.key(5))["params"]
    found = Holder(way).init(jax.random.key(5))["params"]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    np.testing.assert_array_equal(found["items"]["embedding"], expected["items"]["embedding"])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("way", "more"),
    [
        ("own", 0),
        ("initialise", 0),
        ("concatenate", (WIDTH + COLUMNS) * WIDTH),
        (
            "adapter",
            COLUMNS * 2 * WIDTH + 2 * WIDTH + 2 * WIDTH * WIDTH + WIDTH - ITEMS * WIDTH,
        ),
        ("halves", -ITEMS * COLUMNS),
    ],
)
def test_parameter_counts(name, way, more):
    plain, other = (
        jax.eval_shape(partial(init_params, NETWORKS[name](SHAPES[name], ITEMS, w)), KEY, TEXT)
        for w in ("own", way)
    )
    assert size(other) - size(plain) == more
    assert size(plain["items"]) == ITEMS * WIDTH


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_of_a_network_starts_as_ever(way):
    plain, other = (init_params(Caser(SHAPES["caser"], ITEMS, w), KEY, TEXT) for w in ("own", way))
    del plain["items"], other["items"]
    chex.assert_trees_all_equal(plain, other, strict=True)


def test_concatenate_starts_as_its_own_vectors_plus_a_part_of_the_text():
    table, params = started("concatenate")
    kernel = np.asarray(params["projection"]["kernel"])
    np.testing.assert_array_equal(kernel[:WIDTH], np.eye(WIDTH))
    expected = params["embedding"] + TEXT @ kernel[WIDTH:]
    np.testing.assert_allclose(table, expected, atol=1e-6)
    np.testing.assert_array_equal(params["embedding"], started("own")[0])


def test_the_adapter_by_hand():
    table, params = started("adapter")
    first, second = params["wi"], params["wo"]
    inner = np.asarray(TEXT @ first["kernel"] + first["bias"], np.float64)
    inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
    np.testing.assert_allclose(table, inner @ second["kernel"] + second["bias"], atol=1e-4)


def test_halves_are_the_text_as_it_is_and_own_columns():
    table, params = started("halves", TEXT[:, :3])
    np.testing.assert_array_equal(table[:, :3], TEXT[:, :3])
    np.testing.assert_array_equal(table[:, 3:], params["embedding"])
    assert params["embedding"].shape == (ITEMS, 3)
    assert float(np.std(started("halves", np.zeros((400, 8), np.float32), 64)[0][:, 8:])) == (
        pytest.approx(0.02, rel=0.05)
    )
    with pytest.raises(ValueError, match="an item table of 5 columns has none of its own left"):
        started("halves", width=COLUMNS)


@pytest.mark.parametrize("columns", [4, 300])
@pytest.mark.parametrize(
    ("way", "scale"), [("own", 0.02), ("concatenate", 0.02 * 2**0.5), ("adapter", 0.02)]
)
def test_tables_start_at_the_scale_of_a_plain_one(way, scale, columns):
    text = np.random.default_rng(1).normal(size=(200, columns)).astype(np.float32)
    table, _ = started(way, text, width=64)
    assert float(np.sqrt((table**2).mean())) == pytest.approx(scale, rel=0.2)


@pytest.mark.parametrize("way", ["concatenate", "adapter", "halves"])
def test_text_is_no_parameter_and_gets_no_gradient(way):
    module = Caser(SHAPES["caser"], ITEMS, way)
    params = init_params(module, KEY, TEXT)
    assert "text" not in params

    def loss(params, text):
        call = {"batch": BATCH, "config": LossConfig(), "key": KEY}
        return sequence_loss(params, module, text=text, deterministic=True, **call)[0][0]

    of_params, of_text = jax.jit(jax.grad(loss, (0, 1)))(params, TEXT)
    assert jax.tree.structure(of_params) == jax.tree.structure(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of_params["items"]))
    np.testing.assert_array_equal(of_text, np.zeros_like(TEXT))
    assert loss(params, TEXT) != loss(params, TEXT[::-1].copy())


def test_text_is_an_argument_of_what_is_compiled():
    module = Caser(SHAPES["caser"], ITEMS, "adapter")
    params = init_params(module, KEY, TEXT)
    scores = jax.jit(lambda teacher, rows: teacher.scores(rows))
    rows = BATCH.items
    first = scores(NetworkTeacher(params, module, TEXT), rows)
    second = scores(NetworkTeacher(params, module, TEXT[::-1].copy()), rows)
    assert scores._cache_size() == 1
    assert np.abs(first - second).max() > 0


def test_an_item_gets_its_vector_from_its_own_text_alone():
    _, params = started("adapter")
    other = TEXT.copy()
    other[3] += 1
    before, after = (
        np.asarray(Holder("adapter").apply(variables({"items": params}, text)))
        for text in (TEXT, other)
    )
    changed = np.abs(before - after).max(axis=1) > 0
    assert np.flatnonzero(changed).tolist() == [3]


def test_the_table_is_made_once_for_input_and_output(monkeypatch):
    module = Caser(SHAPES["caser"], ITEMS, "adapter")
    params = init_params(module, KEY, TEXT)
    calls, gelu = [], item_table.nn.gelu
    monkeypatch.setattr(item_table.nn, "gelu", lambda x: calls.append(x.shape) or gelu(x))
    call = {"batch": BATCH, "config": LossConfig(), "key": KEY}
    sequence_loss(params, module, text=TEXT, **call)
    assert calls == [(ITEMS, 2 * WIDTH)]


@pytest.mark.parametrize("way", ["concatenate", "adapter", "halves"])
def test_missing_or_wrong_text_is_an_error(way):
    module = Caser(SHAPES["caser"], ITEMS, way)
    with pytest.raises(ValueError, match=f"'{way}' reads text vectors and was given none"):
        init_params(module, KEY)
    with pytest.raises(ValueError, match=r"\(10, 5\) for 11 items"):
        init_params(module, KEY, TEXT[1:])


def test_an_unknown_way_is_an_error():
    with pytest.raises(
        ValueError, match="'add': use own, initialise, concatenate, adapter, halves"
    ):
        started("add")


def test_tables_and_text_vectors_are_split_by_items():
    for way in WAYS:
        _, params = started(way)
        for path, leaf in jax.tree_util.tree_leaves_with_path({"items": params}):
            names = tuple(key.key for key in path)
            expected = ("items", None) if names[-1] == "embedding" else (None,) * leaf.ndim
            assert axes_of(names, leaf.shape) == expected
    for path in (("text", "items", "vectors"), ("text",), ("params", "items", "embedding")):
        assert axes_of(path, TEXT.shape) == ("items", None)
    assert axes_of(("positions", "embedding"), (4, 6)) == (None, None)
