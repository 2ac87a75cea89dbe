"""Our AdaLoRA against `peft` on PyTorch, step by step. Run with `make parity`.

Two tests on three linear maps. Fed the *same* gradients, both must hold the same masks and triplets
at every one of 60 steps: this compares optimizer, importance, budget and masking and nothing else.
Then one step: loss with the orthogonality penalty, gradients, merged weights. The whole
T5 with gradients of its own is in test_adalora_t5_parity.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
peft = pytest.importorskip("peft", reason="peft is not installed here: run `make parity`")

from flax import traverse_util  # noqa: E402

from delrec_jax.language.adalora import merge, orthogonality_penalty  # noqa: E402
from delrec_jax.language.adalora_config import AdaLoRAConfig  # noqa: E402
from delrec_jax.language.rank_allocation import (  # noqa: E402
    allocation_state,
    with_rank_allocation,
)

pytestmark = pytest.mark.parity

STEPS, LEARNING_RATE = 60, 5e-3
CONFIG = AdaLoRAConfig(
    targets=("first", "second", "third"),
    init_rank=6,
    target_rank=3,
    alpha=8.0,
    dropout=0.0,
    warmup=0.1,
    final=0.25,
    interval=4,
    beta1=0.85,
    beta2=0.8,
    orthogonality=0.5,
)
WIDTHS = {"first": (7, 9), "second": (9, 12), "third": (12, 5)}


class Stack(torch.nn.Module):
    """Three linear maps with a nonlinearity between; the loss as `transformers` models give it."""

    def __init__(self):
        super().__init__()
        for name, (inner, outer) in WIDTHS.items():
            setattr(self, name, torch.nn.Linear(inner, outer, bias=False))

    def forward(self, x, target):
        y = self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return Output(y, ((y - target) ** 2).mean())


class Output:
    def __init__(self, y, loss):
        self.y, self.loss = y, loss


def peft_model():
    torch.manual_seed(0)
    lora = peft.AdaLoraConfig(
        target_modules=list(CONFIG.targets),
        init_r=CONFIG.init_rank,
        target_r=CONFIG.target_rank,
        lora_alpha=CONFIG.alpha,
        lora_dropout=0.0,
        tinit=6,
        tfinal=15,
        deltaT=CONFIG.interval,
        beta1=CONFIG.beta1,
        beta2=CONFIG.beta2,
        orth_reg_weight=CONFIG.orthogonality,
        total_step=STEPS,
    )
    model = peft.get_peft_model(Stack(), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_E" in name:
                weight.copy_(0.3 * torch.randn_like(weight))
            elif "lora_" in name and "ranknum" not in name:
                weight.copy_(0.5 * torch.randn_like(weight))
    return model


def triplets(model, of=lambda weight: weight.detach()):
    """The adapters of a peft model (or what `of` takes from each tensor) in our layout."""
    flat = {}
    for name, weight in model.named_parameters():
        if "lora_" not in name or not weight.requires_grad:
            continue
        parts = name.split(".")
        layer, letter = parts[-3], parts[-2].removeprefix("lora_")
        value = of(weight).numpy().copy()
        flat[layer, letter] = jnp.asarray(value[:, 0] if letter == "E" else value.T)
    return traverse_util.unflatten_dict(flat)


def base_weights(model):
    kernels = {name: getattr(model.base_model.model, name).base_layer.weight for name in WIDTHS}
    return {name: {"kernel": jnp.asarray(w.detach().numpy().T)} for name, w in kernels.items()}


def batch(generator):
    x = generator.normal(size=(16, 7)).astype(np.float32)
    return x, np.tanh(x @ generator.normal(size=(7, 5)).astype(np.float32))


def our_loss(adapters, params, x, target):
    merged = merge(params, adapters, CONFIG)
    y = jnp.tanh(jnp.tanh(x @ merged["first"]["kernel"]) @ merged["second"]["kernel"])
    y = y @ merged["third"]["kernel"]
    return ((y - target) ** 2).mean() + CONFIG.orthogonality * orthogonality_penalty(adapters)


def masks_of(model):
    pattern = model.peft_config["default"].rank_pattern
    return pattern and {name.split(".")[-3]: np.array(kept) for name, kept in pattern.items()}


@pytest.mark.parametrize("clip", [0.0, 0.6])
def test_same_gradients_give_the_same_masks_and_triplets_for_sixty_steps(clip):
    """Importance is that of the gradients as the optimizer sees them: torch clips them in place, before `peft` reads them."""
    model = peft_model()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    theirs = torch.optim.Adam(trained, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    clipped = [optax.clip_by_global_norm(clip)] if clip else []
    inner = optax.chain(*clipped, optax.adam(LEARNING_RATE, eps=1e-8))
    ours = with_rank_allocation(inner, CONFIG, STEPS, clip=clip)
    params = triplets(model)
    state = ours.init(params)
    update = jax.jit(ours.update)
    # With these data one measurement more or less before the last pattern gives another pattern.
    generator = np.random.default_rng(6)
    seen, norms = [], []
    for step in range(1, STEPS + 1):
        x, target = (torch.tensor(value) for value in batch(generator))
        model.base_model(x, target).loss.backward()
        grads = jax.tree.map(jnp.array, triplets(model, of=lambda weight: weight.grad.clone()))
        if clip:
            norms.append(float(torch.nn.utils.clip_grad_norm_(trained, clip)))
        theirs.step()
        model.base_model.update_and_allocate(step)
        theirs.zero_grad()

        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        other = triplets(model)
        for path, value in traverse_util.flatten_dict(params).items():
            np.testing.assert_allclose(
                value, other[path[0]][path[1]], atol=1e-5, err_msg=f"step {step}, {path}"
            )
        masks = {name: np.asarray(m["E"]) for name, m in allocation_state(state).masks.items()}
        if (pattern := masks_of(model)) is not None:
            for name, kept in pattern.items():
                np.testing.assert_array_equal(masks[name], kept, err_msg=f"step {step}, {name}")
            seen.append(tuple(int(masks[name].sum()) for name in WIDTHS))
    assert not clip or min(norms) < clip < max(norms)  # some are clipped, some are not
    assert len(set(seen)) > 3  # the ranks moved
    assert sum(seen[-1]) == 3 * CONFIG.target_rank
    assert len(set(seen[-1])) > 1  # and not evenly
    assert all(
        (np.asarray(params[name]["E"]) != 0).sum() == r
        for name, r in zip(WIDTHS, seen[-1], strict=True)
    )


def test_loss_penalty_gradients_and_merged_weights():
    model = peft_model()
    x, target = batch(np.random.default_rng(1))
    # Not model(...): without a task type that goes past the class that adds the penalty.
    output = model.base_model(torch.tensor(x), torch.tensor(target))
    output.loss.backward()
    params, adapters = base_weights(model), triplets(model)
    loss, grads = jax.value_and_grad(our_loss)(adapters, params, x, target)
    np.testing.assert_allclose(loss, output.loss.item(), rtol=1e-5)
    theirs = triplets(model, of=lambda weight: weight.grad)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, theirs)
    ours = merge(params, adapters, CONFIG)
    model.merge_adapter()
    merged = base_weights(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, merged)
    assert np.abs(merged["first"]["kernel"] - params["first"]["kernel"]).max() > 0.1
