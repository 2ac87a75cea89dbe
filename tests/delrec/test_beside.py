"""Residual tuning: the loss by brute force over the open items, no gradient to the teacher, and what validation selects by."""

from dataclasses import replace
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import TuneConfig
from delrec_jax.delrec.labelled_texts import LabelledText, ListedText
from delrec_jax.delrec.residual_tuning import ResidualTuning, standardised
from delrec_jax.delrec.tuning_task import ranking_loss
from delrec_jax.errors import UserError
from delrec_jax.language.logical_axes import READOUT_BEFORE

ITEMS = 6
KNOWN = np.array([True, True, True, True, True, False])
HISTORIES = np.array([[-1, -1, 0], [1, 2, 3]], np.int32)
LABELS = np.array([2, 3], np.int32)  # the second is a repeat: it is in its own history
WEIGHT = 0.5


class Teacher(flax.struct.PyTreeNode):
    """Scores by the last item read: rows of a table."""

    table: jax.Array

    def scores(self, histories):
        assert histories.shape[1] == 2, "it is given no more than it reads"
        return self.table[histories[:, -1]]


TABLE = np.random.default_rng(0).normal(3, 5, (ITEMS, ITEMS)).astype(np.float32)
LM = np.random.default_rng(1).normal(0, 1, (2, ITEMS)).astype(np.float32)
BESIDE = ResidualTuning(WEIGHT, 2, KNOWN)


def expected_sums(lm):
    """By hand: LM + weight x z, z over known items that are not in the history."""
    sums = []
    for own, history in zip(lm, HISTORIES, strict=True):
        given = TABLE[history[-1]].astype(np.float64)
        fresh = [item for item in range(ITEMS) if KNOWN[item] and item not in history]
        sums.append(own + WEIGHT * (given - given[fresh].mean()) / given[fresh].std())
    return np.array(sums)


class Model(SimpleNamespace):
    """A language model whose scores are `LM` moved by its only adapter."""

    def catalogue_scores(self, params, ids, *, adapters, **_):
        return LM + adapters["A"] * jnp.arange(ITEMS)

    def candidate_scores(self, params, ids, candidates, *, adapters, **_):
        scores = self.catalogue_scores(params, ids, adapters=adapters)
        return jnp.take_along_axis(scores, candidates, axis=1)


def loss_of(batch, beside=BESIDE, **settings):
    loss = ranking_loss(Model(), KNOWN, TuneConfig(**settings), beside)

    def total(adapters, teacher):
        frozen = {"params": None, "vectors": None, "prompt": None, "teacher": teacher}
        return loss({"adapters": adapters}, frozen, batch, None)[0].sum()

    given = {"A": jnp.zeros(()), "E": jnp.zeros(()), "B": jnp.zeros(())}
    return total, given


@pytest.fixture(autouse=True)
def no_penalty(monkeypatch):
    monkeypatch.setattr("delrec_jax.delrec.tuning_task.orthogonality_penalty", lambda tree: 0.0)


IDS = np.zeros((2, 4), np.int32)
CANDIDATES = np.array([[4, 2, 1], [5, 0, 3]], np.int32)
CATALOGUE = LabelledText(ids=IDS, label=LABELS, history=HISTORIES)
LISTED = ListedText(
    ids=IDS,
    candidates=CANDIDATES,
    targets=(LABELS[:, None] == CANDIDATES).astype(np.float32),
    history=HISTORIES,
)


@pytest.mark.parametrize("batch", [CATALOGUE, LISTED], ids=["catalogue", "candidates"])
def test_the_loss_is_that_of_the_sum_over_the_open_items(batch):
    sums, expected = expected_sums(LM), 0.0
    for row, (history, label) in enumerate(zip(HISTORIES, LABELS, strict=True)):
        fresh = {item for item in range(ITEMS) if KNOWN[item] and item not in history}
        among = CANDIDATES[row] if batch is LISTED else sorted(fresh | {int(label)})
        expected += np.log(np.exp(sums[row][among]).sum()) - sums[row][label]
    total, adapters = loss_of(batch)
    np.testing.assert_allclose(total(adapters, Teacher(jnp.array(TABLE))), expected, rtol=1e-5)


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def test_alone_the_loss_leaves_out_items_that_training_has_not_and_the_anchor_pulls_back():
    owners = np.array([[1, 0, 2, 2], [0, 0, 0, 0]], np.int32)  # the first text shows titles 0 and 1
    for shown, batch in (
        ([[], []], CATALOGUE),
        ([[0, 1], []], replace(CATALOGUE, owners=owners)),
    ):
        expected = 0.0
        for own, label, hidden in zip(LM, LABELS, shown, strict=True):
            among = [item for item in range(ITEMS) if KNOWN[item] and item not in hidden]
            expected += np.log(np.exp(own[among]).sum()) - own[label]
        total, adapters = loss_of(batch, None, anchor=0.0)
        np.testing.assert_allclose(total(adapters, None), expected, rtol=1e-5)
        before = np.random.default_rng(2).normal(size=LM.shape).astype(np.float32)
        p, q = softmax(before), softmax(LM)
        total, adapters = loss_of(replace(batch, before=before), None, anchor=0.7)
        pulled = expected + 0.7 * (p * np.log(p / q)).sum()
        np.testing.assert_allclose(total(adapters, None), pulled, rtol=1e-5)


@pytest.mark.parametrize("batch", [CATALOGUE, LISTED], ids=["catalogue", "candidates"])
def test_the_adapters_penalty_is_added(batch, monkeypatch):
    monkeypatch.setattr("delrec_jax.delrec.tuning_task.orthogonality_penalty", lambda tree: 4.0)
    config = TuneConfig(anchor=0.0)
    loss = ranking_loss(Model(), KNOWN, config)
    adapters = {"A": jnp.zeros(()), "E": jnp.zeros(()), "B": jnp.zeros(())}
    frozen = {"params": None, "vectors": None, "prompt": None}
    _, _, more = loss({"adapters": adapters}, frozen, batch, None)
    assert more["penalty"] == pytest.approx(4.0 * config.adalora.orthogonality) != 0


@pytest.mark.parametrize("batch", [CATALOGUE, LISTED], ids=["catalogue", "candidates"])
def test_only_the_adapters_get_a_gradient(batch):
    total, adapters = loss_of(batch)
    moved, teacher = jax.grad(total, argnums=(0, 1))(adapters, Teacher(jnp.array(TABLE)))
    assert moved["A"] != 0 and not np.asarray(teacher.table).any()


def test_where_the_teacher_is_right_the_residual_is_small():
    (history, _), label = HISTORIES, 4
    batch = LabelledText(ids=IDS, label=np.array([label] * 2), history=np.array([history] * 2))
    sure = np.full((ITEMS, ITEMS), -1.0, np.float32)
    sure[history[-1], label] = 40.0
    alone, adapters = loss_of(batch, beside=None)
    summed, _ = loss_of(batch, beside=ResidualTuning(20.0, 2, KNOWN))
    own = jax.grad(alone)(adapters, None)["A"]
    residual = jax.grad(summed)(adapters, Teacher(jnp.array(sure)))["A"]
    assert abs(residual) < 1e-3 * abs(own)


def test_scores_that_do_not_differ_add_nothing():
    scores = jnp.array([[2.5, 2.5, 2.5, 9.0], [1.0, 3.0, 5.0, 3.0]])
    among = jnp.array([[True, True, True, False], [True, False, True, False]])
    found = standardised(scores, among)
    np.testing.assert_allclose(found, [[0, 0, 0, 0], [-1, 0, 1, 0]], atol=1e-6)


def test_only_items_that_cannot_be_scored_get_the_lowest_score():
    """A system that breaks must not pass for one that has no opinion: what ranks refuses scores that are not finite."""
    scores = jnp.array(
        [[1.0, -jnp.inf, 3.0], [1.0, jnp.nan, 3.0], [1.0, jnp.inf, 3.0], [-jnp.inf] * 3]
    )
    found = np.asarray(standardised(scores))
    np.testing.assert_allclose(found[0], np.array([-1, -1, 2]) / np.sqrt(2), atol=1e-6)
    assert not np.isfinite(found[1:3]).all(axis=1).any()
    np.testing.assert_array_equal(found[3], 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beside": "popularity"}, "tune.beside is 'popularity'"),
        ({"beside_weight": 0.0}, "tune.beside_weight is 0.0"),
        ({"beside_weight": float("nan")}, "tune.beside_weight is nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(UserError) as refused:
        TuneConfig(**wrong)
    assert message in str(refused.value)


def test_the_anchor_holds_on_to_the_readout_that_stage_2_begins_with():
    """Not to the start of the config, which stage 1 has left."""
    told = []

    class Asked(Model):
        def catalogue_scores(self, params, ids, *, readout=None, adapters=None, **_):
            told.append(readout)
            return jnp.asarray(LM)

    own, first = {"log_scale": 1.0}, {"log_scale": 2.0}
    frozen = {"params": None, "vectors": None, "prompt": None}
    adapters = {"A": jnp.zeros(()), "E": jnp.zeros(()), "B": jnp.zeros(())}
    loss = ranking_loss(Asked(), KNOWN, TuneConfig(anchor=1.0))
    for before, expected in (({READOUT_BEFORE: first}, first), ({}, None)):
        told.clear()
        loss({"adapters": adapters, "readout": own}, {**frozen, **before}, CATALOGUE, None)
        assert told == [own, expected]
