"""SASRec's states against the formulas of the paper, written in NumPy one position at a time.

Kang and McAuley 2018, section III, with the changes that `sasrec.py` names: layer norms before both branches and at the
end, a position-wise network of width 4 D with GELU, and positions that count from the most recent item.
"""

import jax
import numpy as np
import pytest

from delrec_jax.teachers.network import init_params
from delrec_jax.teachers.sasrec import SASRec, SASRecConfig

CONFIG = SASRecConfig(width=6, layers=2, heads=2, max_length=7)
ITEMS = 5
HISTORIES = np.array(
    [
        [-1, -1, -1, 3, 1],
        [4, 0, 2, 2, 3],
        [-1, 1, -1, 4, 0],  # an unknown item inside
        [-1, -1, -1, -1, 2],
    ]
)


@pytest.fixture(scope="module")
def params():
    """Numbers so large that every path carries a signal, in float64."""
    module = SASRec(CONFIG, ITEMS)
    tree = jax.eval_shape(lambda key: init_params(module, key), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), tree)


def layer_norm(x, norm):
    spread = np.sqrt(x.var() + 1e-6)
    return (x - x.mean()) / spread * norm["scale"] + norm["bias"]


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(block, states, known, place):
    """What the item at a place takes from the items up to it: never from an unknown one, except for itself."""
    normed = [layer_norm(x, block["attention_norm"]) for x in states]
    seen = [key for key in range(place + 1) if known[key] or key == place]
    size = CONFIG.width // CONFIG.heads
    out = block["out"]["bias"].copy()
    for head in range(CONFIG.heads):

        def project(name, at, head=head):
            return normed[at] @ block[name]["kernel"][:, head] + block[name]["bias"][head]

        query = project("query", place)
        logits = np.array([query @ project("key", key) / np.sqrt(size) for key in seen])
        weights = np.exp(logits) / np.exp(logits).sum()
        mixed = sum(w * project("value", key) for w, key in zip(weights, seen, strict=True))
        out += mixed @ block["out"]["kernel"][head]
    return out


def feed_forward(block, x):
    inner = layer_norm(x, block["feed_forward_norm"]) @ block["wi"]["kernel"] + block["wi"]["bias"]
    assert inner.shape == (4 * CONFIG.width,)
    return gelu(inner) @ block["wo"]["kernel"] + block["wo"]["bias"]


def reference(params, history):
    """The state after each item of one history without padding."""
    known, length = history >= 0, len(history)
    vectors, positions = params["items"]["embedding"], params["positions"]["embedding"]
    states = [
        (np.sqrt(CONFIG.width) * vectors[item] if item >= 0 else 0) + positions[length - 1 - place]
        for place, item in enumerate(history)
    ]
    for number in range(CONFIG.layers):
        block = params[f"blocks_{number}"]
        states = [x + attention(block, states, known, at) for at, x in enumerate(states)]
        states = [x + feed_forward(block, x) for x in states]
    return np.stack([layer_norm(x, params["final_norm"]) for x in states])


def test_states_are_those_of_the_formulas(params):
    found = jax.jit(SASRec(CONFIG, ITEMS).apply)({"params": params}, HISTORIES)
    for history, states in zip(HISTORIES, found, strict=True):
        first = int(np.argmax(history >= 0))  # states at padding are meaningless
        expected = reference(params, history[first:])
        np.testing.assert_allclose(states[first:], expected, rtol=0, atol=1e-5)
