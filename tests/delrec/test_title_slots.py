"""Slots that follow titles: their vectors, the projector, the curriculum, and what the config refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from delrec_jax.config import DistillConfig, Experiment, TeacherConfig, TuneConfig
from delrec_jax.config.p2rec import AugmentConfig
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.delrec import title_slots
from delrec_jax.delrec.labelled_texts import LabelledText
from delrec_jax.delrec.next_item_examples import NextItemExamples
from delrec_jax.delrec.rows import Rows
from delrec_jax.errors import UserError
from delrec_jax.language.soft_prompt import embed_with_prompt
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer, with_own_rate

ITEMS, WIDTH, MODEL = 7, 3, 4
RAW = np.random.default_rng(0).normal(3.0, 0.05, size=(ITEMS, WIDTH))
KNOWN = np.arange(ITEMS) != 5
TABLE = jnp.asarray(np.random.default_rng(1).normal(size=(10, MODEL)), jnp.float32)


def test_vectors_are_standardised_over_known_items():
    vectors = title_slots.item_vectors(RAW, KNOWN)
    rows = RAW[KNOWN] - RAW[KNOWN].mean(0)
    np.testing.assert_allclose(vectors[KNOWN], rows / rows.std(), rtol=1e-5)
    assert vectors.dtype == np.float32 and not vectors[5].any()


def test_slots_are_what_the_projector_makes_of_the_vectors():
    vectors = title_slots.item_vectors(RAW, KNOWN)
    projector = title_slots.init_projector(TABLE, WIDTH, jax.random.key(0))
    slots = title_slots.slots_of(projector, vectors)
    first, second = (jax.tree.map(np.asarray, projector[name]) for name in ("first", "second"))
    for item in range(ITEMS):
        inner = vectors[item] @ first["weight"] + first["bias"]
        inner = inner * (1 + erf(inner / 2**0.5)) / 2
        np.testing.assert_allclose(slots[item], inner @ second["weight"], atol=2e-3)
    assert title_slots.slots_of(projector, None) is projector


def test_an_untrained_slot_is_as_large_as_a_row_of_the_table():
    table = 3.0 * jax.random.normal(jax.random.key(2), (50, 64))
    vectors = title_slots.item_vectors(
        np.random.default_rng(3).normal(size=(80, 16)), np.ones(80, bool)
    )
    slots = title_slots.project(title_slots.init_projector(table, 16, jax.random.key(0)), vectors)
    assert 0.7 < float(slots.std() / table.std()) < 1.3


def test_gradients_reach_the_projector_through_the_slots_of_a_text_alone():
    vectors = jnp.asarray(title_slots.item_vectors(RAW, KNOWN))
    projector = title_slots.init_projector(TABLE, WIDTH, jax.random.key(0))

    def loss(projector, ids):
        read = embed_with_prompt(TABLE, title_slots.slots_of(projector, vectors), ids)
        return (read**2).sum()

    gradients = jax.grad(loss)(projector, jnp.array([[1, 10 + 2, 4, 10 + 6]]))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    unread = jax.grad(loss)(projector, jnp.array([[1, 2, 4, 6]]))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(unread))


def examples(pattern):
    """One user with six items, whose texts are the pattern and nothing else."""
    train = Interactions(("u",), np.array([0, 6]), np.arange(6, dtype=np.int32), np.arange(6))
    rows = Rows(np.zeros(5, np.int32), np.arange(1, 6, dtype=np.int32))
    pieces = ("pieces",)
    config = TuneConfig()
    return NextItemExamples(
        rows=rows, labels=np.arange(1, 6), known=np.arange(6), train=train, pieces=pieces,
        pattern=pattern, config=config,
    )  # fmt: skip


def batches(monkeypatch, steps, count):
    monkeypatch.setattr(
        "delrec_jax.delrec.next_item_examples.lsr_text",
        lambda pieces, shown, pattern: (np.append(pattern, 1).astype(np.int32), None),
    )
    made = examples(np.array([7, 8]))
    iterator = training_iterator(
        made.example, len(made), batch_size=200, buckets=(4,), seed=1, steps=steps
    )
    return [next(iterator) for _ in range(count)], iterator


def test_a_curriculum_goes_from_words_to_prompts(monkeypatch):
    found, iterator = batches(monkeypatch, 8, 5)
    shares = [(batch.ids == 7).any(1).mean() for batch in found]
    for step, share in enumerate(shares):
        assert abs(share - step / 8) < 0.15  # four standard deviations of 200 texts
    assert shares[0] == 0 and isinstance(found[0], LabelledText)
    state = iterator.get_state()
    wanted = next(iterator)
    (_, again) = batches(monkeypatch, 8, 1)
    again.set_state(state)
    np.testing.assert_array_equal(next(again).ids, wanted.ids)
    whole, _ = batches(monkeypatch, 0, 2)
    assert all((batch.ids == 7).any(1).all() for batch in whole)


def test_a_branch_with_its_own_rate_takes_larger_steps():
    config = OptimizerConfig(clip=0, weight_decay=0.1, schedule="constant")
    params = {"adapters": jnp.ones(2), "prompt": {"first": jnp.ones(3)}}
    plain = make_optimizer(config, 5)
    own = with_own_rate(plain, "prompt", 4.0)
    changes = [opt.update(params, opt.init(params), params)[0] for opt in (plain, own)]
    np.testing.assert_allclose(changes[1]["adapters"], changes[0]["adapters"])
    np.testing.assert_allclose(changes[1]["prompt"]["first"], 4 * changes[0]["prompt"]["first"])


def test_the_plan_lowers_stages_that_train_the_projector():
    base = Experiment()
    tiny = replace(base.lm.t5, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    experiment = replace(
        base,
        lm=replace(base.lm, t5=tiny, vocab_size=40),
        prompts=replace(base.prompts, max_tokens=40),
        distill=replace(base.distill, prompt="titles", top_h=4, num_candidates=5, batch_size=4),
        tune=replace(base.tune, train_prompt=True, batch_size=4),
    )
    width, items = experiment.teacher.shape.width, 9
    tasks = planned_tasks(experiment, jax.devices()[:1], Assumed(items=items, title_tokens=3))
    assert [task.stage for task in tasks] == ["teach", "pretrain", "distill", "tune"]
    for task in tasks[2:]:
        assert task.frozen["slot_vectors"].shape == (items, width)
        shapes = jax.tree.map(lambda leaf: leaf.shape, task.state.params["prompt"])
        assert shapes == {
            "first": {"weight": (width, 8), "bias": (8,)},
            "second": {"weight": (8, 8), "bias": (8,)},
        }
        assert task.scoring.held["prompt"].shape == (items, 8)
        assert f"tensor<{items}x8xf32>" in task.lower().as_text()
        task.scoring.lower()


@pytest.mark.parametrize("name", ["popularity", "ease+sasrec", "markov"])
def test_a_teacher_without_item_vectors_is_refused(name):
    with pytest.raises(
        UserError, match=rf"teacher\.name={name.replace('+', '.')} has none: use one of"
    ):
        Experiment(teacher=TeacherConfig(name=name), distill=DistillConfig(prompt="titles"))


def test_an_augmented_teacher_of_two_tables_is_refused():
    titled = Experiment(distill=DistillConfig(prompt="titles"), method="delrec_p2rec")
    assert titled.distill.titled and not titled.distill.guided
    with pytest.raises(UserError, match=r"augment\.way=ensemble .*: use another augment\.way"):
        replace(titled, augment=AugmentConfig(way="ensemble"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: DistillConfig(slot_vectors="none"),
            r"slot_vectors is 'none': use one of teacher, random",
        ),
        (lambda: TuneConfig(prompt_rate=0.0), r"tune\.prompt_rate is 0\.0"),
        (lambda: DistillConfig(length=0), r"distill\.length is 0"),
        (lambda: DistillConfig(num_candidates=1, top_h=1), r"distill\.num_candidates is 1"),
        (lambda: TuneConfig(num_candidates=1), r"tune\.num_candidates is 1"),
        (lambda: PromptConfig(max_history=0), r"prompts\.max_history is 0"),
        (
            lambda: Experiment(prompts=PromptConfig(show_candidates=True)),
            r"tune\.loss_over=catalogue .*: set tune\.loss_over=candidates, or prompts\.show_candidates=False",
        ),
    ],
)
def test_wrong_values_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()
