"""Networks and losses under `jit`: op by op, each test of them would compile a hundred tiny programs."""

from functools import partial

import jax

from delrec_jax.teachers.network import sequence_loss


@jax.jit
def scores(teacher, rows):
    """`teacher.scores(rows)`."""
    return teacher.scores(rows)


@partial(jax.jit, static_argnames=("module", "config", "deterministic"))
def loss(params, module, *, batch, config, key, deterministic=False, text=None):
    """`sequence_loss` with items of which all are known."""
    return sequence_loss(
        params,
        module,
        batch=batch,
        config=config,
        key=key,
        deterministic=deterministic,
        text=text,
    )
