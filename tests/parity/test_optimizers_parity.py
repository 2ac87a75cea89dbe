"""AdamW with clipping and schedule against `torch.optim`, from the same start and with the same gradients."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")

pytestmark = pytest.mark.parity

STEPS, WARMUP = 30, 8
SHAPES = {"prompt": (5, 8), "adapter": (3, 4)}


def draws(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def start():
    """Below 1 in size, so that float32's own rounding over 30 steps stays far under the tolerance."""
    return {name: leaf / 4 for name, leaf in draws(0).items()}


def gradients():
    """Some far above the clip, some below it."""
    sizes = np.random.default_rng(9).uniform(0.01, 2, STEPS)
    return [
        {name: np.float32(size) * leaf for name, leaf in draws(100 + step).items()}
        for step, size in enumerate(sizes)
    ]


def share(step, final):
    """Linear warm-up, then linear decay to `final` at the last step."""
    if step < WARMUP:
        return step / WARMUP
    return 1 + (final - 1) * (step - WARMUP) / (STEPS - WARMUP)


def theirs(decay, clip, final):
    params = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in start().items()}
    optimizer = torch.optim.AdamW(params.values(), lr=0.01, betas=(0.9, 0.98), weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, final))
    path = []
    for grads in gradients():
        for name, parameter in params.items():
            parameter.grad = torch.tensor(grads[name])
        if clip:
            torch.nn.utils.clip_grad_norm_(params.values(), clip)
        optimizer.step()
        schedule.step()
        path.append({name: leaf.detach().numpy().copy() for name, leaf in params.items()})
    return path


def ours(decay, clip, final):
    config = OptimizerConfig(
        name="adamw", learning_rate=0.01, schedule="linear", final_fraction=final,
        warmup_steps=WARMUP, weight_decay=decay, clip=clip,
    )  # fmt: skip
    optimizer = make_optimizer(config, STEPS)
    params = {name: jnp.array(leaf) for name, leaf in start().items()}
    state, path = optimizer.init(params), []
    for grads in gradients():
        updates, state = optimizer.update(
            {name: jnp.array(leaf) for name, leaf in grads.items()}, state, params
        )
        params = optax.apply_updates(params, updates)
        path.append({name: np.asarray(leaf) for name, leaf in params.items()})
    return path


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("clip", [0.0, 2.0])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_adamw_takes_torchs_path(decay, clip, final):
    expected = theirs(decay, clip, final)
    for step, (found, there) in enumerate(zip(ours(decay, clip, final), expected, strict=True)):
        for name in SHAPES:
            np.testing.assert_allclose(
                found[name], there[name], rtol=0, atol=1e-6, err_msg=f"{name}, step {step}"
            )
    assert np.abs(expected[-1]["prompt"] - start()["prompt"]).max() > 0.02
    norms = [np.sqrt(sum((leaf**2).sum() for leaf in grads.values())) for grads in gradients()]
    assert min(norms) < 2 < max(norms)
