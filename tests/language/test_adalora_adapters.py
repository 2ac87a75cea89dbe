"""AdaLoRA's triplets: where they sit, what they add, the penalty, merging."""

from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from delrec_jax.errors import UserError
from delrec_jax.language.adalora import (
    AdapterDropout,
    Projection,
    init_adapters,
    merge,
    orthogonality_penalty,
    rank_pattern,
    scaling,
)
from delrec_jax.language.adalora_config import AdaLoRAConfig, is_target
from delrec_jax.language.attention import Attention
from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import hidden_at_masks
from delrec_jax.language.t5_model import T5Model

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)
CONFIG = AdaLoRAConfig(targets=("q", "v"), init_rank=3, target_rank=2)
IDS, ASKED = jnp.asarray([[5, 9, 39, 7, 1], [3, 8, 39, 1, 0]]), jnp.full((2, 1), 39)


def with_random_values(adapters, seed=0):
    """Every entry N(0, 0.5^2), E too."""
    leaves, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, drawn)


# An adapted k or v of a cross-attention takes another order of the same products (attention.py).
@pytest.mark.parametrize(("targets", "rounding"), [(("q", "o", "w*"), 0), (("q", "k", "v"), 1e-6)])
def test_fresh_adapters_leave_the_model_as_it_was(gated, targets, rounding):
    config, params = gated
    lora = replace(CONFIG, targets=targets)
    adapters = init_adapters(params, lora, jax.random.key(0))
    base = HIDDEN(T5(config), params, IDS, ASKED)
    adapted = HIDDEN(T5(replace(config, adapters=lora)), params, IDS, ASKED, adapters=adapters)
    np.testing.assert_allclose(adapted, base, rtol=0, atol=rounding * np.abs(base).max())


def test_fresh_values():
    params = {"block": {"q": {"kernel": jnp.zeros((300, 200))}, "v": {"kernel": jnp.zeros((8, 6))}}}
    adapters = init_adapters(params, CONFIG, jax.random.key(0))["block"]
    assert (adapters["q"]["E"] == 0).all()
    for name in "AB":
        np.testing.assert_allclose(adapters["q"][name].std(), 0.02, rtol=0.15)
    assert not np.array_equal(adapters["q"]["A"][:8], adapters["v"]["A"])
    assert not np.array_equal(adapters["q"]["A"][:200].T, adapters["q"]["B"])


def test_only_named_projections_are_adapted(gated):
    config = replace(CONFIG, targets=("wo", "k"))
    paths = traverse_util.flatten_dict(init_adapters(gated[1], config, jax.random.key(0)))
    assert {path[-2] for path in paths} == {"wo", "k"}
    assert len(paths) == 3 * (3 + 5)  # 3 blocks with one wo each, 5 attentions


PATHS = [
    (*path, name)
    for path in (
        ("encoder", "block_0", "SelfAttention"),
        ("encoder", "block_11", "SelfAttention"),
        ("encoder", "blocks", "SelfAttention"),
        ("decoder", "block_0", "SelfAttention"),
        ("decoder", "block_0", "EncDecAttention"),
        ("decoder", "blocks", "EncDecAttention"),
    )
    for name in "qv"
] + [("decoder", "block_1", "DenseReluDense", name) for name in ("wi_0", "wi_1", "wo")]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("q", [path for path in PATHS if path[3] == "q"]),
        ("w*", PATHS[-3:]),
        ("wi_?", PATHS[-3:-1]),
        ("[qv]", PATHS[:-3]),
        ("EncDecAttention/v", [path for path in PATHS if path[2:] == ("EncDecAttention", "v")]),
        ("decoder/*/EncDecAttention/v", [PATHS[9], PATHS[11]]),
        ("decoder/*/*/v", [PATHS[7], PATHS[9], PATHS[11]]),
        ("encoder/block_0/SelfAttention/q", PATHS[:1]),
        ("block_[01]/SelfAttention/q", [PATHS[0], PATHS[6]]),
        # A name is met whole, case and all; a star does not cross a slash; nothing stands above the stack.
        ("Q", []),
        ("SelfAttention", []),
        ("Attention/q", []),
        ("encoder/*/q", []),
        ("encoder/*", []),
        ("*/*/*/*/q", []),
    ],
)
def test_a_rule_meets_the_end_of_a_path(rule, wanted):
    assert [path for path in PATHS if is_target(path, (rule,))] == wanted
    # Beside another rule it means the same.
    others = [path for path in PATHS if path in wanted or path[3] == "wo"]
    assert [path for path in PATHS if is_target(path, ("wo", rule))] == others


def test_rules_at_their_limits():
    assert not any(is_target(path, ()) for path in PATHS)
    assert all(is_target(path, ("*/*",)) for path in PATHS)
    assert is_target(("lm_head",), ("*",)) and not is_target(("lm_head",), ("*/*",))


@pytest.mark.parametrize("rule", ["", "/q", "q/", "decoder//q"])
def test_a_rule_with_a_missing_name_is_refused(rule):
    with pytest.raises(UserError, match=f"^adalora.targets has the rule '{rule}': .*slashes"):
        AdaLoRAConfig(targets=("q", rule))


RULES = ("decoder/*/EncDecAttention/v", "encoder/*/DenseReluDense/w*")


@pytest.mark.parametrize("scanned", [False, True])
def test_rules_choose_the_adapted_projections_in_both_layouts(gated, scanned):
    params = stack_layers(gated[1]) if scanned else gated[1]
    adapters = init_adapters(params, replace(CONFIG, targets=RULES), jax.random.key(0))
    found = {"/".join(path[:-1]) for path in traverse_util.flatten_dict(adapters)}
    decoder = ["blocks"] if scanned else ["block_0", "block_1"]
    expected = {f"decoder/{block}/EncDecAttention/v" for block in decoder}
    encoder = "blocks" if scanned else "block_0"
    assert found == expected | {
        f"encoder/{encoder}/DenseReluDense/{n}" for n in ("wi_0", "wi_1", "wo")
    }


def test_a_rule_for_one_block_is_refused_where_layers_are_scanned(gated):
    config = replace(CONFIG, targets=("q", "decoder/block_1/*/v"))
    adapters = init_adapters(gated[1], config, jax.random.key(0))
    assert set(adapters["decoder"]["block_1"]["EncDecAttention"]) == {"q", "v"}
    assert set(adapters["decoder"]["block_0"]["EncDecAttention"]) == {"q"}
    with pytest.raises(UserError, match=r"^adalora.targets .*\['decoder/block_1/\*/v'\] match"):
        init_adapters(stack_layers(gated[1]), config, jax.random.key(0))


def test_a_projection_adds_its_scaled_triplet(gated):
    config = replace(gated[0], adapters=replace(CONFIG, init_rank=2, alpha=6.0, dropout=0.0))
    kernel = jnp.asarray([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    a, e = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), jnp.asarray([0.5, -1.0])
    b = jnp.asarray([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    x = jnp.asarray([[[2.0, -1.0]]])
    y = Projection(config, 2, 3, 1.0).apply(
        {"params": {"kernel": kernel}, "adapters": {"A": a, "E": e, "B": b}}, x, x
    )
    # x W = [2, -1, 5]; x A = [-1, 0]; times E = [-0.5, 0]; times B = [-0.5, -0.5, 0]; alpha / r = 3
    # but for the guard of 1e-5 in r.
    np.testing.assert_allclose(y, [[[0.5, -2.5, 5.0]]], rtol=2e-5)
    plain = Projection(config, 2, 3, 1.0).apply({"params": {"kernel": kernel}}, x, x)
    np.testing.assert_array_equal(plain, [[[2.0, -1.0, 5.0]]])


def test_scaling_is_alpha_over_rank():
    assert scaling(AdaLoRAConfig()) == 32 / (12 + 1e-5)


def test_dropout_zeroes_at_its_rate_and_scales_up_the_rest(gated):
    config = replace(gated[0], adapters=replace(CONFIG, dropout=0.3))
    x = jax.random.normal(jax.random.key(0), (4, 64, 100))

    def dropped(config, deterministic):
        key = {"dropout": jax.random.key(1)}
        return AdapterDropout(config).apply({}, x, deterministic, rngs=key)

    y = dropped(config, False)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-6)
    np.testing.assert_allclose(kept.mean(), 0.7, atol=0.01)  # 25,600 draws: 3 sigma are 0.009
    np.testing.assert_allclose(kept.mean(axis=(0, 1)).std(), (0.21 / 256) ** 0.5, rtol=0.3)
    for off in (dropped(config, True), dropped(replace(config, adapters=None), False)):
        np.testing.assert_array_equal(off, x)


def test_dropout_acts_on_the_adapter_alone(gated):
    config = replace(gated[0], adapters=CONFIG)
    x, dropped = jnp.asarray([[[2.0, -1.0]]]), jnp.asarray([[[4.0, 0.0]]])
    kernel, ones = jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.ones((2, 2))
    adapter = {"A": ones, "E": jnp.asarray([1.0, 0.0]), "B": ones}
    variables = {"params": {"kernel": kernel}, "adapters": adapter}
    y = Projection(config, 2, 2, 1.0).apply(variables, x, dropped)
    np.testing.assert_allclose(y, x + scaling(CONFIG) * 4.0, rtol=1e-6)


@pytest.mark.parametrize("targets", [("q",), ("k",), ("v",), ("o",), ("wi_0", "wo"), ("k", "v")])
def test_every_adapter_trains_under_dropout(gated, targets):
    config, params = gated
    lora = replace(CONFIG, targets=targets, dropout=0.2)
    adapters = with_random_values(init_adapters(params, lora, jax.random.key(0)))
    module = T5(replace(config, adapters=lora, dropout_rate=0.0))

    def loss(adapters, key):
        hidden = HIDDEN(module, params, IDS, ASKED, adapters=adapters, dropout_key=key)
        return (hidden[..., :5] ** 3).sum()

    value, grads = jax.value_and_grad(loss)(adapters, jax.random.key(1))
    assert value != loss(adapters, jax.random.key(2))
    used = [path for path in traverse_util.flatten_dict(grads) if path[-1] == "E"]
    for path in used:
        assert np.abs(traverse_util.flatten_dict(grads)[path]).max() > 1e-6, path


# With dropout only k and v: one mask of the text, drawn from the same key, but one of the queries per call.
@pytest.mark.parametrize(
    ("targets", "dropout"), [(("k",), 0.4), (("v",), 0.4), (("q", "k", "v"), 0.0)]
)
def test_long_and_short_answers_attend_to_the_text_alike(gated, targets, dropout):
    """For few queries, cross-attention moves its projections to the short side: the same function."""
    config = replace(gated[0], adapters=replace(CONFIG, targets=targets, dropout=dropout))
    attention = gated[1]["decoder"]["block_0"]["EncDecAttention"]
    adapters = with_random_values(init_adapters(attention, config.adapters, jax.random.key(0)))
    text = jax.random.normal(jax.random.key(1), (2, 9, 12))
    queries = jax.random.normal(jax.random.key(2), (2, 8, 12))
    mask = jnp.arange(9)[None] < jnp.asarray([[9], [4]])

    def attend(queries, deterministic=False):
        return Attention(config).apply(
            {"params": attention, "adapters": adapters},
            queries,
            text,
            bias=None,
            mask=mask[:, None, None],
            deterministic=deterministic,
            rngs={"dropout": jax.random.key(3)},
        )

    assert queries.shape[1] > config.d_kv > 2  # the plain order, and by twos the other
    whole = attend(queries)
    parts = [attend(queries[:, start : start + 2]) for start in (0, 2, 4, 6)]
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-4, atol=1e-4)
    moved = np.abs(whole - attend(queries, deterministic=True)).max()
    assert moved > 0.1 if dropout else moved == 0


def test_merged_equals_unmerged(either):
    config, params = either
    wide = replace(CONFIG, targets=("q", "k", "v", "o", "wo"))
    adapters = with_random_values(init_adapters(params, wide, jax.random.key(0)))
    adapters = jax.tree.map(lambda x: 0.3 * x, adapters)
    adapted = T5(replace(config, adapters=wide))
    before = jax.tree.map(np.array, params)
    unmerged = HIDDEN(adapted, params, IDS, ASKED, adapters=adapters)
    merged = HIDDEN(T5(config), merge(params, adapters, wide), IDS, ASKED)
    scale = np.abs(unmerged).max()
    np.testing.assert_allclose(merged / scale, unmerged / scale, rtol=0, atol=1e-6)
    base = HIDDEN(T5(config), params, IDS, ASKED)
    assert np.abs(merged - base).max() > 0.1 * scale
    jax.tree.map(np.testing.assert_array_equal, params, before)  # merging is no in-place change


def test_merged_equals_unmerged_of_one_projection_to_the_last_digits(gated):
    config = replace(gated[0], adapters=CONFIG)
    params = {"q": {"kernel": jax.random.normal(jax.random.key(0), (12, 15)) / 4}}
    adapters = with_random_values(
        init_adapters(params, replace(CONFIG, targets=("q",)), jax.random.key(1))
    )
    adapters = jax.tree.map(lambda x: x / 4, adapters)
    x = jax.random.normal(jax.random.key(2), (2, 3, 12)) / 4
    module = Projection(config, 12, 15, 1.0)
    unmerged = module.apply({"params": params["q"], "adapters": adapters["q"]}, x, x)
    merged = module.apply({"params": merge(params, adapters, CONFIG)["q"]}, x, x)
    np.testing.assert_allclose(merged, unmerged, atol=1e-6)
    assert np.abs(merged - x @ params["q"]["kernel"]).max() > 1e-2


@pytest.mark.parametrize("scanned", [False, True])
def test_merging_is_exact(either, scanned):
    params = stack_layers(either[1]) if scanned else either[1]
    config = replace(CONFIG, targets=("q", "v", "wo"), alpha=8.0)
    adapters = with_random_values(init_adapters(params, config, jax.random.key(0)))
    merged = merge(params, adapters, config)
    kernels, triplets = traverse_util.flatten_dict(merged), traverse_util.flatten_dict(adapters)
    for path, kernel in traverse_util.flatten_dict(params).items():
        if (*path[:-1], "A") not in triplets:
            np.testing.assert_array_equal(kernels[path], kernel)
            continue
        a, e, b = (np.asarray(triplets[(*path[:-1], name)], np.float64) for name in "AEB")
        update = 8 / (3 + 1e-5) * np.einsum("...ir,...r,...ro->...io", a, e, b)
        assert np.abs(update).max() > 0.1
        expected = np.asarray(kernel, np.float64) + update
        np.testing.assert_allclose(kernels[path], expected, rtol=0, atol=1e-6)


def test_orthogonality_penalty_by_hand():
    adapters = {
        "q": {
            # A^T A - I = diag(3, 0) -> 3
            "A": jnp.asarray([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
            "E": jnp.asarray([100.0, 100.0]),
            # B B^T - I = [[1, 2], [2, 3]] -> sqrt(18)
            "B": jnp.asarray([[1.0, 1.0], [0.0, 2.0]]),
        },
        # A^T A - I = -I -> sqrt(2); B orthonormal -> 0
        "v": {"A": jnp.zeros((3, 2)), "E": jnp.ones(2), "B": jnp.eye(2, 4)},
    }
    expected = (3 + 18**0.5 + 2**0.5 + 0) / 4
    np.testing.assert_allclose(orthogonality_penalty(adapters), expected, rtol=1e-6)


def test_rank_pattern_counts_entries_in_use():
    adapters = {
        "b": {
            "v": {"A": jnp.zeros((2, 3)), "E": jnp.asarray([0.0, -1.0, 2.0]), "B": jnp.ones((3, 2))}
        },
        "a": {"q": {"A": jnp.ones((2, 3)), "E": jnp.zeros(3), "B": jnp.ones((3, 2))}},
    }
    assert rank_pattern(adapters) == {"a/q": 0, "b/v": 2}


@pytest.mark.parametrize("targets", [("query",), ("q", "vv"), ("wi",)])
def test_a_target_that_matches_nothing_is_named(gated, targets):
    config = replace(CONFIG, targets=targets)
    with pytest.raises(
        UserError,
        match=rf"^adalora.targets .*{targets[-1]}.* the model has k, o, q, v, wi_0, wi_1, wo$",
    ):
        init_adapters(gated[1], config, jax.random.key(0), closed=T5Model(gated[0]).closed)


@pytest.mark.parametrize("targets", [("lm_head",), ("q", "lm_head"), ("q", "*"), ("lm_*",)])
def test_the_head_is_refused_because_scores_would_not_see_its_adapter(either, targets):
    with pytest.raises(UserError, match=r"^adalora.targets .*lm_head cannot be adapted.*head"):
        config, key = replace(CONFIG, targets=targets), jax.random.key(0)
        init_adapters(either[1], config, key, closed=T5Model(either[0]).closed)


def test_settings_at_their_limits_are_taken():
    limits = {"interval": 1, "warmup": 0.0, "final": 0.0, "dropout": 0.0}
    assert AdaLoRAConfig(**limits).interval == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_rank": 13}, r"target_rank is 13.*init_rank \(12\)"),
        ({"target_rank": 0}, "target_rank is 0"),
        ({"warmup": 0.5, "final": 0.5}, r"warmup \+ adalora.final is 1.0"),
        ({"interval": 0}, "^adalora.interval is 0: it must be at least 1"),
        ({"warmup": -0.1}, "^adalora.warmup is -0.1: it must be at least 0"),
        ({"final": -0.1}, "^adalora.final is -0.1: it must be at least 0"),
        ({"beta1": 1.0}, "^adalora.beta1 is 1.0: it must be between 0 and 1"),
        ({"beta2": 0.0}, "^adalora.beta2 is 0.0: it must be between 0 and 1"),
        ({"dropout": 1.0}, "^adalora.dropout is 1.0: it must be at least 0 and under 1"),
        ({"dropout": -0.1}, "^adalora.dropout is -0.1"),
        ({"alpha": 0.0}, "^adalora.alpha is 0.0: it must be positive"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(UserError, match=message):
        AdaLoRAConfig(**values)


def test_settings_start_as_documented():
    assert asdict(AdaLoRAConfig()) == {
        **{"targets": ("q", "v"), "init_rank": 12, "target_rank": 8, "alpha": 32.0},
        **{"dropout": 0.05, "warmup": 0.1, "final": 0.3, "interval": 10},
        **{"beta1": 0.85, "beta2": 0.85, "orthogonality": 0.5},
    }
    at = AdaLoRAConfig(init_rank=1, target_rank=1, orthogonality=0.0)
    assert (at.init_rank, at.orthogonality) == (1, 0)


@pytest.mark.parametrize(
    "values",
    [
        *({"alpha": -1.0}, {"alpha": float("inf")}, {"dropout": 1.5}, {"beta1": 0.0}),
        *({"beta1": -0.5}, {"beta1": 1.5}, {"beta2": 1.0}, {"beta2": 1.5}, {"beta2": -0.5}),
        *({"orthogonality": -0.5}, {"orthogonality": float("inf")}, {"warmup": 0.6, "final": 0.7}),
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(UserError, match=f"adalora.{next(iter(values))}"):
        AdaLoRAConfig(**values)
