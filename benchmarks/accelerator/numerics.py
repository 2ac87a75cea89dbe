"""How exact float32 products are by default, and whether cuDNN's attention equals ours: values, gradients, memory, time."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Record, milliseconds

from delrec_jax.evaluation.ranking import rank_full
from delrec_jax.language.attention import attend_by_xla
from delrec_jax.language.fused_attention import attend_by_cudnn

Attend = Callable[..., jax.Array]

# Batch, tokens, heads, channels per head.
_SHAPES = {
    "flan-t5-xl": (32, 512, 32, 64),
    "flan-t5-small": (32, 512, 6, 64),
    "short": (8, 128, 12, 64),
    "test": (3, 16, 2, 8),
}


KERNELS: dict[str, Attend] = {
    "xla": attend_by_xla,
    "cudnn": attend_by_cudnn,
}


def run(record: Record, tiny: bool) -> None:
    """Measures products first, then each kernel at each shape."""
    size = 256 if tiny else 2048
    for precision in ("default", "high", "highest"):
        name = f"float32 product {size}^3, {precision}: relative error"
        record.measure(name, product_error, size, precision)
    items = 1000 if tiny else 100_000
    name = f"ranks of 512 users among {items} items, default instead of highest"
    record.measure(name, changed_ranks, items)
    for shape in ("test",) if tiny else _SHAPES:
        wanted = {f"{shape}, {kernel}": attend for kernel, attend in KERNELS.items()}
        wanted = {name: attend for name, attend in wanted.items() if record.wants(name)}
        if wanted and record.left > 0:
            inputs = attention_inputs(*_SHAPES[shape])
            expected = _exact(inputs)
            for name, attend in wanted.items():
                record.measure(name, kernel_facts, attend, inputs, expected)


def product_error(size: int, precision: str) -> float:
    """Relative error of a float32 product against float64 on the host: about 1e-7 in float32, 3e-4 in TF32."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
    found = np.asarray(jnp.matmul(a, b, precision=precision), np.float64)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def changed_ranks(items: int) -> dict[str, float]:
    """Share of ranks that differ, and the largest change, for random hidden states and title vectors of width 512."""
    hidden = jax.random.normal(jax.random.key(0), (512, 512))
    vectors = jax.random.normal(jax.random.key(1), (items, 512))
    targets = jax.random.randint(jax.random.key(2), (512,), 0, items)
    ranks = [
        np.asarray(rank_full(jnp.matmul(hidden, vectors.T, precision=precision), targets)[0])
        for precision in ("default", "highest")
    ]
    change = np.abs(ranks[0] - ranks[1])
    return {"share": float((change > 0).mean()), "largest": float(change.max())}


def attention_inputs(rows: int, tokens: int, heads: int, channels: int) -> Any:
    """q, k, v in bfloat16, bias, mask, and a gradient of the outputs that is 0 at padding, as the model's is."""
    keys = jax.random.split(jax.random.key(0), 5)
    size = (rows, tokens, heads, channels)
    q, k, v, back = (jax.random.normal(key, size, jnp.bfloat16) for key in keys[:4])
    bias = jax.random.normal(keys[4], (1, heads, tokens, tokens), jnp.float32)
    lengths = jnp.linspace(tokens, max(1, tokens // 4), rows).astype(jnp.int32)
    mask = jnp.arange(tokens)[None] < lengths[:, None]
    q = q * channels**-0.5  # unscaled logits of deviation 1, as under T5's initialization
    return q, k, v, bias, mask[:, None, None], jnp.where(mask[..., None, None], back, 0)


def kernel_facts(attend: Attend, inputs: Any, expected: Any) -> dict[str, Any]:
    """Errors against float32; memory and time of forward, of backward to q, k, v, and of backward to the bias as well."""
    programs = {
        "forward": lambda *a: attend(*a[:5]),
        "backward": _gradients(attend, 3),
        "backward with bias": _gradients(attend, 4),
    }
    with ThreadPoolExecutor() as pool:
        compiled = dict(
            zip(programs, pool.map(partial(_compiled, inputs), programs.values()), strict=True)
        )
    valid = inputs[4][:, 0, 0, :, None, None]
    found = (compiled["forward"](*inputs) * valid, *compiled["backward with bias"](*inputs))
    pairs = zip(
        ("output", "q", "k", "v", "bias"), found, (expected[0] * valid, *expected[1:]), strict=True
    )
    facts: dict[str, Any] = {f"error of {name}": _relative(x, y) for name, x, y in pairs}
    shape = f"{inputs[0].shape[0]},{inputs[0].shape[2]},{inputs[3].shape[2]},{inputs[3].shape[3]}"
    for name, program in compiled.items():
        text, memory = program.as_text(), program.memory_analysis()
        facts[name] = {
            "ms": milliseconds(partial(program, *inputs), calls=5),
            "temporaries, MiB": round(memory.temp_size_in_bytes / 2**20, 1),
            f"arrays [{shape}]": sorted(set(re.findall(rf"= \(?(\w+)\[{shape}\]", text))),
            "cudnn": "cudnn" in text,
        }
    return facts


def _compiled(inputs: Any, program: Callable[..., Any]) -> Any:
    return jax.jit(program).lower(*inputs).compile()


def _gradients(attend: Attend, count: int) -> Callable[..., Any]:
    """(q, k, v, bias, mask, gradient of the outputs) -> gradients with respect to the first `count` of them."""

    def gradients(*arguments: jax.Array) -> Any:
        """Pulls the outputs' gradient back."""
        held, (mask, back) = arguments[count:4], arguments[4:]
        _, pull = jax.vjp(lambda *first: attend(*first, *held, mask), *arguments[:count])
        return pull(back.astype(arguments[0].dtype))

    return gradients


def _exact(inputs: Any) -> Any:
    """Output and gradients by XLA in float32."""
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype != bool else x, inputs)
    with jax.default_matmul_precision("highest"):
        both = jax.jit(lambda *a: (attend_by_xla(*a[:5]), *_gradients(attend_by_xla, 4)(*a)))
        return jax.block_until_ready(both(*wide))


def _relative(found: jax.Array, exact: jax.Array) -> float:
    """Norm of the difference, relative to the norm of `exact`, in float32."""
    found, exact = found.astype(jnp.float32), exact.astype(jnp.float32)
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
