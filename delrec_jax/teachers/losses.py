"""The losses that teachers train with: the next item at every position, over all items or over some.

`cross_entropy`    the softmax over the whole catalogue: the strongest loss, affordable up to about 10^5 items.
`sampled_softmax`  the softmax over the label and a few uniform negatives, corrected for how few they are.
`gbce`             generalized binary cross-entropy (Petrov and Macdonald, "gSASRec", RecSys 2023, eq. 8-11): negative sampling
                   whose overconfidence is calibrated by the power `beta` on the positive's probability. Negatives are
                   drawn per training row, whereas the paper draws them per position.

The last two cost O(negatives) per label instead of O(catalogue), for catalogues of millions of items.
"""

from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from delrec_jax.choices import one_of
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM

LOSSES = ("cross_entropy", "sampled_softmax", "gbce")

# Scores are made, used and dropped for one chunk of labels at a time, while they are in the processor's cache. On 2 cores
# and with 12,101 items a step is twice as fast as with all scores at once; with 1,682 items 400 rows are the fastest.
CHUNK_SCORES = 2_500_000
CHUNK_ROWS = 400


def rows_per_chunk(items: int, width: int) -> int:
    """Labels per chunk, for a catalogue of so many items with vectors [width].

    Each chunk reads and writes the gradient [items, width], so with large catalogues a chunk has at least as many scores as
    that has values: with 200,000 items and a width of 64, 48 labels take two thirds of the time of 12.
    """
    return max(1, min(CHUNK_ROWS, max(CHUNK_SCORES // items, width)))


@dataclass(frozen=True)
class LossConfig:
    """Which loss to train with.

    Attributes:
      name: `cross_entropy`, `sampled_softmax` or `gbce`.
      negatives: number of items drawn uniformly for each row of a batch; not used by `cross_entropy`.
      calibration: t of `gbce`: 0 is plain binary cross-entropy, 1 is full calibration.
    """

    name: str = "cross_entropy"
    negatives: int = 256
    calibration: float = 0.75

    def __post_init__(self) -> None:
        one_of("teacher.loss.name", self.name, LOSSES)
        sampled = self.name != "cross_entropy"
        if not sampled and (self.negatives, self.calibration) != (256, 0.75):
            raise UserError(
                f"teacher.loss.negatives={self.negatives}, teacher.loss.calibration={self.calibration}: cross_entropy draws no "
                "negatives; leave both out, or set teacher.loss.name to sampled_softmax or gbce"
            )
        if self.negatives < 1:
            raise UserError(f"teacher.loss.negatives is {self.negatives}: must be at least 1")
        if not 0 <= self.calibration <= 1:
            raise UserError(f"teacher.loss.calibration is {self.calibration}: must be in [0, 1]")


def next_item_loss(
    states: Float[Array, "B L D"],
    table: Float[Array, "I D"],
    labels: Int[Array, "B L"],
    *,
    config: LossConfig,
    key: jax.Array,
    ways: int = 1,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The loss summed over all labels, and the number of labels.

    Args:
      states: the network's output at each position; scores are `states @ table.T`.
      table: one output vector per item.
      labels: the item that comes next; -1 where there is none.
      config: which loss.
      key: random key that draws the negatives.
      ways: over how many devices the rows of `states` are divided.

    Returns:
      `(sum, count)`, the sum in nats.
    """
    chex.assert_shape(labels, states.shape[:-1])
    count = (labels >= 0).sum().astype(jnp.float32)
    if config.name == "cross_entropy":
        flat = states.reshape(-1, states.shape[-1])  # [B * L, D]
        return cross_entropy_sum(flat, table, labels.reshape(-1), ways), count
    others = table.shape[0] - 1
    drawn = jax.random.randint(key, (len(states), config.negatives), 0, table.shape[0])  # [B, K]
    positive, negative, usable = _scores_of(states, table, labels, drawn)
    if config.name == "sampled_softmax":
        losses = sampled_softmax(positive, negative, usable, others=others)
    elif config.name == "gbce":
        beta = gbce_beta(config.negatives / others, config.calibration)
        losses = gbce(positive, negative, usable, beta=beta)
    else:
        raise ValueError(f"{config.name} is among LOSSES, but is not computed here")
    return jnp.where(labels >= 0, losses, 0.0).sum(), count


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def cross_entropy_sum(
    states: Float[Array, "N D"],
    table: Float[Array, "I D"],
    labels: Int[Array, "N"],
    ways: int = 1,
) -> Float[Array, ""]:
    """-log softmax(states @ table.T)[labels], summed over labels >= 0, without ever holding all scores.

    Loss and gradient are computed in one pass over chunks of labels: once the loss is known, the gradient needs nothing else
    except the factor that the chain rule brings later. Differentiable once, with respect to `states` and `table`.

    If N divides over `ways` devices, each sums what its own rows say, and the sums are added once, not after every chunk.
    """
    return _cross_entropy_pass(states, table, labels, ways)[0]


def _cross_entropy_pass(
    states: Float[Array, "N D"], table: Float[Array, "I D"], labels: Int[Array, "N"], ways: int
) -> tuple[Float[Array, ""], Float[Array, "N D"], Float[Array, "I D"]]:
    """The summed loss and its gradients to `states` and to `table`, in float32."""
    output = table.astype(jnp.float32)
    if ways == 1 or len(states) % ways:
        return _pass_of_one_device(states.astype(jnp.float32), output, labels)
    own = states.astype(jnp.float32).reshape(ways, -1, states.shape[1])  # [ways, N / ways, D]
    of_devices = jax.vmap(_pass_of_one_device, in_axes=(0, None, 0))
    losses, row_gradients, table_gradients = of_devices(own, output, labels.reshape(ways, -1))
    return losses.sum(), row_gradients.reshape(states.shape), table_gradients.sum(axis=0)


def _pass_of_one_device(
    states: Float[Array, "N D"], output: Float[Array, "I D"], labels: Int[Array, "N"]
) -> tuple[Float[Array, ""], Float[Array, "N D"], Float[Array, "I D"]]:
    """The same for the rows of one device, in chunks as equal as possible."""
    count, width = states.shape
    chunks = -(-count // min(count, rows_per_chunk(*output.shape)))

    def one(table_gradient: Array, part: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        """Adds a chunk's share to the table's gradient; returns its summed loss and the gradients to its rows."""
        rows, wanted = part  # [chunk, D], [chunk]
        known = wanted >= 0
        scores = rows @ output.T  # [chunk, I]
        largest = scores.max(axis=1, keepdims=True)  # [chunk, 1]
        powers = jnp.exp(scores - largest)
        total = powers.sum(axis=1, keepdims=True)  # [chunk, 1]
        label = jnp.maximum(wanted, 0)
        true = jnp.take_along_axis(scores, label[:, None], axis=1)  # [chunk, 1]
        losses = (jnp.log(total) + largest - true)[:, 0]  # [chunk]
        probabilities = powers * (known[:, None] / total)
        row_gradient = probabilities @ output - jnp.where(known[:, None], output[label], 0.0)
        return table_gradient + probabilities.T @ rows, (  # [I, D]
            jnp.where(known, losses, 0.0).sum(),
            row_gradient,  # [chunk, D]
        )

    parts = (_chunked(states, chunks), _chunked(labels, chunks, padding=PAD_ITEM))
    table_gradient, (losses, row_gradient) = jax.lax.scan(one, jnp.zeros_like(output), parts)
    # The labels' own share is added once, not chunk by chunk: the scatter then writes only a few rows.
    known = (labels >= 0)[:, None]
    table_gradient = table_gradient.at[jnp.maximum(labels, 0)].add(jnp.where(known, -states, 0.0))
    return losses.sum(), row_gradient.reshape(-1, width)[:count], table_gradient


def _chunked(
    values: Shaped[Array, "N ..."], chunks: int, *, padding: int = 0
) -> Shaped[Array, "chunks chunk ..."]:
    """The rows in chunks of equal size, the last one padded."""
    size = -(-len(values) // chunks)
    ends = [(0, chunks * size - len(values)), *[(0, 0)] * (values.ndim - 1)]
    padded = jnp.pad(values, ends, constant_values=padding)
    return padded.reshape(chunks, size, *values.shape[1:])


def _cross_entropy_forward(
    states: Array, table: Array, labels: Array, ways: int
) -> tuple[Array, tuple[Array, Array]]:
    loss, row_gradient, table_gradient = _cross_entropy_pass(states, table, labels, ways)
    return loss, (row_gradient.astype(states.dtype), table_gradient.astype(table.dtype))


def _cross_entropy_backward(
    ways: int, gradients: tuple[Array, Array], factor: Array
) -> tuple[Array, Array, None]:
    row_gradient, table_gradient = gradients
    return row_gradient * factor, table_gradient * factor, None


cross_entropy_sum.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def sampled_softmax(
    positive: Float[Array, "B L"],
    negative: Float[Array, "B L K"],
    usable: Array,
    *,
    others: int,
) -> Float[Array, "B L"]:
    """-log of the label's softmax, where K uniform negatives stand for all `others`.

    Each usable negative counts `others / usable` times, so that it is the full softmax if every other item is drawn once.

    Args:
      positive: scores of the labels.
      negative: scores of the negatives.
      usable: bool [B, L, K], False where a negative is the label itself.
      others: items that are not the label, I - 1.
    """
    number = jnp.maximum(usable.sum(-1, keepdims=True), 1)  # [B, L, 1]
    weighted = jnp.where(usable, negative + jnp.log(others / number), -jnp.inf)
    together = jnp.concatenate([positive[..., None], weighted], axis=-1)  # [B, L, 1 + K]
    return jax.nn.logsumexp(together, axis=-1) - positive


def gbce_beta(sampling_rate: float, calibration: float) -> float:
    """The power on the positive's probability: beta = alpha (t (1 - 1/alpha) + 1/alpha), gSASRec eq. 10."""
    alpha = min(sampling_rate, 1.0)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def gbce(
    positive: Float[Array, "B L"], negative: Float[Array, "B L K"], usable: Array, *, beta: float
) -> Float[Array, "B L"]:
    """-(log sigmoid(s+)^beta + sum log(1 - sigmoid(s-))) / (K + 1), gSASRec eq. 8; shapes as in `sampled_softmax`."""
    wrong = jnp.where(usable, jax.nn.softplus(negative), 0.0).sum(-1)
    return (beta * jax.nn.softplus(-positive) + wrong) / (usable.sum(-1) + 1)


def _scores_of(
    states: Float[Array, "B L D"],
    table: Float[Array, "I D"],
    labels: Int[Array, "B L"],
    drawn: Int[Array, "B K"],
) -> tuple[Float[Array, "B L"], Float[Array, "B L K"], Bool[Array, "B L K"]]:
    """Scores in float32 of the labels and of each row's negatives, and which of the latter are not the label."""
    states, table = states.astype(jnp.float32), table.astype(jnp.float32)
    positive = jnp.einsum("bld,bld->bl", states, table[jnp.maximum(labels, 0)])
    negative = jnp.einsum("bld,bkd->blk", states, table[drawn])
    return positive, negative, drawn[:, None, :] != labels[..., None]
