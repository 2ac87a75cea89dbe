"""AdaLoRA on a whole T5 against `peft`, each side with gradients of its own. Run with `make parity`.

Both start from the same weights and see the same batches for 60 steps; nothing else is exchanged. test_adalora_parity.py
feeds both the same gradients instead, and so tells the allocation apart from the model.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
peft = pytest.importorskip("peft", reason="peft is not installed here: run `make parity`")

from flax import traverse_util  # noqa: E402
from hf_paths import our_path  # noqa: E402
from torch_t5 import TINY, our_params, torch_t5  # noqa: E402

from delrec_jax.language.adalora import orthogonality_penalty  # noqa: E402
from delrec_jax.language.adalora_config import AdaLoRAConfig  # noqa: E402
from delrec_jax.language.layer_stacking import stack_layers, unstack_layers  # noqa: E402
from delrec_jax.language.rank_allocation import (  # noqa: E402
    allocation_state,
    with_rank_allocation,
)
from delrec_jax.language.t5 import T5  # noqa: E402
from delrec_jax.language.t5_names import T5_NAMES  # noqa: E402

pytestmark = pytest.mark.parity

STEPS, LEARNING_RATE = 60, 1e-3
CONFIG = AdaLoRAConfig(
    init_rank=6,
    target_rank=3,
    alpha=16.0,
    dropout=0.0,
    warmup=0.1,
    final=0.25,
    interval=4,
    beta1=0.85,
    beta2=0.8,
    orthogonality=0.5,
)
OPTIMIZERS = {
    "adam": (torch.optim.Adam, optax.adam, {}),
    "adamw": (torch.optim.AdamW, optax.adamw, {"weight_decay": 0.1}),
}


def peft_model(config, noise):
    """The tiny T5 with peft's AdaLoRA, its start moved off (E = 0, A and B small) by `noise`; and our base weights."""
    base = torch_t5()
    params = our_params(base)
    model = peft.get_peft_model(
        base,
        peft.AdaLoraConfig(
            task_type="SEQ_2_SEQ_LM",
            target_modules=list(config.targets),
            init_r=config.init_rank,
            target_r=config.target_rank,
            lora_alpha=config.alpha,
            lora_dropout=0.0,
            tinit=6,
            tfinal=15,
            deltaT=config.interval,
            beta1=config.beta1,
            beta2=config.beta2,
            orth_reg_weight=config.orthogonality,
            total_step=STEPS,
        ),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight += noise * torch.randn_like(weight) * weight.requires_grad
    return model, params


def adapter_path(name):
    """Our path of `base_model.model.MODULE.lora_X.default` (the prefix may be missing)."""
    *module, letter, _ = name.removeprefix("base_model.model.").split(".")
    path, _ = our_path(T5_NAMES, ".".join([*module, "weight"]))
    return (*path[:-1], letter.removeprefix("lora_"))


def triplets(model):
    """The adapters of a peft model in our layout."""
    flat = {}
    for name, weight in model.named_parameters():
        if "lora_" in name and weight.requires_grad:
            path, value = adapter_path(name), weight.detach().numpy().copy()
            flat[path] = jnp.asarray(value[:, 0] if path[-1] == "E" else value.T)
    return traverse_util.unflatten_dict(flat)


def masks_of(model):
    """What peft holds in use, by our path of each E; None before its first reallocation."""
    pattern = model.peft_config["default"].rank_pattern
    return pattern and {adapter_path(name): np.array(kept) for name, kept in pattern.items()}


def batches(count):
    """Texts padded on the right and answers to be learned: half of them the same at every step."""
    draw = np.random.default_rng(0)
    known = draw.integers(2, TINY.vocab_size, (4, 15))
    for _ in range(count):
        rows = np.concatenate([known, draw.integers(2, TINY.vocab_size, (4, 15))])
        ids, answers = rows[:, :11], rows[:, 11:]
        ids[::3, 8:] = 0
        yield ids, answers


def their_loss(model, ids, answers):
    ids = torch.tensor(ids)
    return model(input_ids=ids, attention_mask=ids != 0, labels=torch.tensor(answers)).loss


def our_step(module, params, optimizer, config):
    def loss(adapters, ids, answers):
        decoder_ids = jnp.pad(answers[:, :-1], ((0, 0), (1, 0)))
        logits = module.apply({"params": params, "adapters": adapters}, ids, decoder_ids)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
        return losses.mean() + config.orthogonality * orthogonality_penalty(adapters)

    @jax.jit
    def step(adapters, state, ids, answers):
        value, grads = jax.value_and_grad(loss)(adapters, ids, answers)
        updates, state = optimizer.update(grads, state, adapters)
        return optax.apply_updates(adapters, updates), state, value

    return step


def train_both(config, model, params, *, name, scanned, allocate):
    """Trains peft's model and ours; after every step (number, our adapters unrolled, our masks).

    `allocate` is peft's `update_and_allocate`: its caller must not forget it, ours cannot.
    """
    their_class, our_class, options = OPTIMIZERS[name]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    theirs = their_class(trained, lr=LEARNING_RATE, eps=1e-8, **options)
    ours = with_rank_allocation(our_class(LEARNING_RATE, eps=1e-8, **options), config, STEPS)
    adapters = triplets(model)
    if scanned:
        params, adapters = stack_layers(params), stack_layers(adapters)
    module = T5(replace(TINY, adapters=config, scan_layers=scanned))
    state, take = ours.init(adapters), our_step(module, params, ours, config)
    for step, (ids, answers) in enumerate(batches(STEPS), start=1):
        loss = their_loss(model, ids, answers)
        loss.backward()
        theirs.step()
        allocate(step)
        theirs.zero_grad()
        adapters, state, our_loss = take(adapters, state, ids, answers)
        assert float(our_loss) == pytest.approx(loss.item(), abs=1e-4)
        masks = traverse_util.flatten_dict(unstack_layers(allocation_state(state).masks))
        yield step, unstack_layers(adapters), masks


def assert_close(ours, theirs, step):
    ours, theirs = (traverse_util.flatten_dict(tree) for tree in (ours, theirs))
    assert set(ours) == set(theirs)
    for path, value in ours.items():
        np.testing.assert_allclose(
            value, theirs[path], rtol=0, atol=1e-5, err_msg=f"step {step}, {'/'.join(path)}"
        )


def least_move(start, end):
    """How far that A or B went that went least (an E may end where it started, at zero)."""
    start, end = (traverse_util.flatten_dict(tree) for tree in (start, end))
    return min(np.abs(start[path] - end[path]).max() for path in start if path[-1] != "E")


@pytest.mark.parametrize("scanned", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize(("name", "noise"), [("adam", 0.3), ("adamw", 0.0)])
def test_sixty_steps_with_own_gradients(name, noise, scanned):
    model, params = peft_model(CONFIG, noise)
    start, ranks = triplets(model), []
    allocate = model.base_model.update_and_allocate
    for step, adapters, masks in train_both(
        CONFIG, model, params, name=name, scanned=scanned, allocate=allocate
    ):
        assert_close(adapters, triplets(model), step)
        pattern = masks_of(model) or {path: np.ones(6, bool) for path in masks}
        assert set(pattern) == set(masks)
        for path, kept in pattern.items():
            np.testing.assert_array_equal(masks[path], kept, err_msg=f"step {step}, {path}")
        ranks.append(tuple(int(kept.sum()) for kept in pattern.values()))
    assert step == STEPS and least_move(start, adapters) > 0.02  # every tensor was trained
    assert set(ranks[:7]) == {(6,) * 12}  # (2 + 2 x 2) attentions, q and v
    assert len(set(ranks)) > 7  # the ranks moved at the reallocations 8, 12, .. 44 and 45
    assert set(ranks[44:]) == {ranks[-1]} and sum(ranks[-1]) == 12 * CONFIG.target_rank
    assert len(set(ranks[-1])) > 2  # and not evenly
    used = {path: int((e != 0).sum()) for path, e in traverse_util.flatten_dict(adapters).items()}
    assert tuple(used[path] for path in pattern) == ranks[-1]


def test_plain_lora_is_the_allocation_that_is_never_due():
    config = replace(CONFIG, targets=("k", "wo"), target_rank=CONFIG.init_rank)
    model, params = peft_model(config, noise=0.3)
    start = triplets(model)
    for step, adapters, masks in train_both(
        config, model, params, name="adam", scanned=False, allocate=lambda step: None
    ):
        assert_close(adapters, triplets(model), step)
        assert all(mask.all() for mask in masks.values())
    assert step == STEPS and least_move(start, adapters) > 0.02
