"""Input pipelines on grain: from an index to an example to a padded batch, resumable at any step.

An example is a pure function of (index, its own random generator), so the stream at step n is the same whether or not the run
was interrupted before it. Texts are padded to a few bucket lengths, so that few shapes are compiled.

An example and a batch of examples have the same `batch_type`.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from delrec_jax import prng
from delrec_jax.batches import WHOLE, Share
from delrec_jax.padding import PAD_TOKEN

# Grain is imported late: it loads Orbax, and only what trains needs an iterator.
if TYPE_CHECKING:
    import grain

Example = TypeVar("Example")

PER_TOKEN = ("ids", "counted", "owners")
"""Fields of examples with one number per token of a text, which are padded."""


def bucket_length(length: int, buckets: Sequence[int]) -> int:
    """Returns the smallest bucket that holds `length` tokens.

    Raises:
      ValueError: no bucket is large enough.
    """
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise ValueError(f"a text of {length} tokens exceeds the largest bucket {buckets[-1]}")


def make_buckets(longest: int, smallest: int = 32) -> tuple[int, ...]:
    """Returns bucket lengths 32, 48, 64, 96, 128, ... up to at least `longest`: only a few, as each is compiled once.

    The last one is cut to the multiple of 64 that `longest` needs: 1,065 tokens need 1,088 and not 1,536.

    Raises:
      ValueError: the smallest length is under 2 and would not grow.
    """
    if smallest < 2:
        raise ValueError(
            f"the smallest bucket is {smallest}: it must be at least 2 to grow by half"
        )
    buckets = [smallest]
    while buckets[-1] < longest:
        power = buckets[-1] & (buckets[-1] - 1) == 0
        buckets.append(buckets[-1] * 3 // 2 if power else buckets[-1] * 4 // 3)
    return (*buckets[:-1], min(buckets[-1], -(-longest // 64) * 64))


def pad_texts(texts: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Stacks token arrays into int32 [B, length], padded on the right with 0."""
    result = np.full((len(texts), length), PAD_TOKEN, np.int32)
    for row, text in zip(result, texts, strict=True):
        row[: len(text)] = text
    return result


def collate(examples: Sequence[Example], buckets: Sequence[int]) -> Example:
    """Stacks examples; `PER_TOKEN` fields are padded to the longest text's bucket, others must agree in shape or be None."""
    kind: Any = type(examples[0])

    def stacked(name: str) -> np.ndarray | None:
        rows = [getattr(example, name) for example in examples]
        missing = sum(row is None for row in rows)
        if missing == len(rows):
            return None
        if missing:
            raise ValueError(f"{missing} of {len(rows)} examples have no {name}, and others do")
        if name not in PER_TOKEN:
            return np.stack(rows)
        return pad_texts(rows, bucket_length(max(map(len, rows)), buckets))

    batch: Example = kind(**{field.name: stacked(field.name) for field in fields(kind)})
    return batch


def training_iterator(
    make_example: Callable[..., Any],
    num_examples: int,
    *,
    batch_size: int,
    buckets: Sequence[int],
    seed: int,
    share: Share = WHOLE,
    steps: int = 0,
    lengths_stay: bool = False,
    group: int = 0,
) -> Any:
    """Returns an endless shuffled iterator of padded batches with `get_state` and `set_state`.

    With several processes each gets its rows of the same batches: together they are the batch of a single process, padded to
    the same length. A process makes its own examples. It makes the texts of other processes' rows only to learn their
    lengths, and none once some text of the batch needs the largest bucket. Where lengths stay, each row's is remembered;
    where they follow from draws (candidates that are listed, a task, a part of a history), the text is made each time.

    Args:
      make_example: makes an example from its index and a generator and, with `steps`, from how far training is.
      num_examples: examples per epoch.
      batch_size: examples per batch, over all processes.
      buckets: lengths that texts are padded to, ascending.
      seed: seed of shuffling and of the examples' generators; the same in all processes.
      share: the rows of each batch that this process provides.
      steps: length of the training; each example is then also told the share of it that lies before its batch, from 0 to 1.
      lengths_stay: a text's length depends on its index alone, not on the generator. Costs 4 bytes per example.
      group: so many batches at a time share out their examples by length, which saves padding; 0 = each takes what comes. An
        epoch still has every example once. Each process must then know the lengths of all texts.

    Raises:
      UserError: the batch cannot be shared equally.
      ValueError: there is no such share.
    """
    import grain

    mine = share.rows(batch_size).tolist()
    elsewhere = sorted({*range(batch_size)} - {*mine})
    indices = grain.MapDataset.range(num_examples).seed(seed).shuffle().repeat(None)
    if steps:
        timed = indices.map_with_index(lambda place, index: (index, place // batch_size / steps))
        examples = timed.random_map(lambda one, rng: make_example(int(one[0]), rng, one[1]))
    else:
        examples = indices.random_map(lambda index, rng: make_example(int(index), rng))
    length: Callable[[int], int] = (
        _lengths_once(make_example, indices, num_examples)
        if lengths_stay
        else lambda place: _tokens(examples[place])
    )
    places = _by_length(length, batch_size, group, seed) if group else _in_order(batch_size)

    def batch(step: int) -> Any:
        here = places(int(step))
        own = [examples[here[row]] for row in mine]
        others = (length(here[row]) for row in elsewhere)
        lengths = chain(map(_tokens, own), others)
        return collate(own, (_bucket_of_all(lengths, buckets),))

    return _by_step(batch, batch_size)


def _lengths_once(
    make_example: Callable[..., Any], indices: Any, num_examples: int
) -> Callable[[int], int]:
    """From a place of the stream to the tokens of its text, made once for each example."""
    known = np.full(num_examples, -1, np.int32)

    def length(place: int) -> int:
        index = int(indices[place])
        if known[index] < 0:
            known[index] = _tokens(make_example(index, np.random.default_rng(0)))
        return int(known[index])

    return length


def _in_order(batch_size: int) -> Callable[[int], Sequence[int]]:
    """The places in the stream of the examples of each step's batch: as they come."""
    return lambda step: range(step * batch_size, (step + 1) * batch_size)


def _by_length(
    length: Callable[[int], int], batch_size: int, group: int, seed: int
) -> Callable[[int], Sequence[int]]:
    """The places of each step's batch, where groups of batches share out their examples by length.

    Within a group the batches come in random order: sorted, training would end each group on its longest texts.
    """

    @lru_cache(maxsize=2)
    def grouped(number: int) -> list[list[int]]:
        first = number * group * batch_size
        lengths = [length(first + row) for row in range(group * batch_size)]
        batches = first + np.argsort(lengths, kind="stable").reshape(group, batch_size)
        shuffled: list[list[int]] = (
            np.random.default_rng((seed, number)).permutation(batches).tolist()
        )
        return shuffled

    return lambda step: grouped(step // group)[step % group]


def _tokens(example: Any) -> int:
    """The length of an example's text; one without a text needs no padding."""
    return len(getattr(example, "ids", ()))


def _bucket_of_all(lengths: Iterable[int], buckets: Sequence[int]) -> int:
    """The bucket of the longest text; asks for no further lengths once it is the last bucket."""
    longest, decided = 0, (0, *buckets)[-2]
    for length in lengths:
        longest = max(longest, length)
        if longest > decided:
            break
    return bucket_length(longest, buckets)


def row_iterator(rows: Example, *, batch_size: int, seed: int, share: Share = WHOLE) -> Any:
    """Returns an endless shuffled iterator over rows that are arrays already, resumable like `training_iterator`.

    A batch is one indexing of each array: on rows of 50 numbers this costs a hundredth of making and stacking examples.

    Args:
      rows: a `batch_type` of arrays whose first axis is that of the rows.
      batch_size: rows per batch, over all processes.
      seed: seed of the shuffling, the same in all processes; each epoch has an order of its own.
      share: as in `training_iterator`.

    Raises:
      UserError: the batch cannot be shared equally.
      ValueError: there is no such share.
    """
    mine = share.rows(batch_size)
    kind: Any = type(rows)
    arrays = {field.name: getattr(rows, field.name) for field in fields(kind)}
    count = len(next(iter(arrays.values())))

    @lru_cache(maxsize=2)  # a batch may be the end of one epoch and the beginning of the next
    def order(epoch: int) -> np.ndarray:
        return prng.generator(seed, "rows", epoch).permutation(count)

    def batch(step: int) -> Any:
        places = int(step) * batch_size + mine
        epochs = places // count
        chosen = np.empty(len(places), np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            chosen[here] = order(epoch)[places[here] % count]
        return kind(**{name: array[chosen] for name, array in arrays.items()})

    return _by_step(batch, batch_size)


def _by_step(batch: Callable[[int], Any], batch_size: int) -> Any:
    """An iterator over the batches of all steps, made ahead; its state counts full batches, whatever the processes."""
    import grain

    return _prefetched(grain.MapDataset.range(sys.maxsize // batch_size).map(batch))


def batch_iterator(make_batch: Callable[[int, np.random.Generator], Any], *, seed: int) -> Any:
    """Returns an endless iterator of batches, each made from its number alone; resumable like `training_iterator`."""
    import grain

    dataset = (
        grain.MapDataset.range(1 << 31)
        .seed(seed)
        .random_map(lambda index, rng: make_batch(int(index), rng))
    )
    return _prefetched(dataset)


def _prefetched(dataset: "grain.MapDataset") -> Any:
    import grain

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))
