"""The form of examples and batches: frozen dataclasses that JAX treats as trees, with the shapes stated in their fields.

An example and a batch of examples have the same type; in a batch every field has a leading axis B. A field `ids` is a text,
and `counted` and `owners` have a number for each of its tokens; batches pad them on the right (`data.pipeline.collate`).
"""

from typing import Any, NamedTuple, TypeVar, dataclass_transform

import chex
import numpy as np
from jaxtyping import Int64

from delrec_jax.errors import UserError

Record = TypeVar("Record")

Arrays = Any
"""Arrays of NumPy on the host and of JAX on the devices; for jaxtyping, as in `Int[Arrays, "*B T"]`."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def batch_type(cls: type[Record]) -> type[Record]:
    """Turns a class into such a dataclass; fields are passed by name."""
    made: type[Record] = chex.dataclass(frozen=True, mappable_dataclass=False)(cls)
    return made


class Share(NamedTuple):
    """The rows of every batch that one process provides: some of the equal blocks that the batch is divided into.

    On one node or over ordinary networks a process has one block. On a slice of a TPU the mesh follows the torus, and a host's
    devices may hold blocks that do not follow one another.

    Attributes:
      blocks: numbers of its blocks, from 0, ascending.
      of: number of blocks of the batch.
    """

    blocks: tuple[int, ...]
    of: int

    def rows(self, batch_size: int) -> Int64[np.ndarray, " B"]:
        """Returns the rows of a batch that belong to it, ascending.

        Raises:
          UserError: the batch does not divide into the blocks.
          ValueError: there are no such blocks.
        """
        if not self.blocks or not all(0 <= block < self.of for block in self.blocks):
            raise ValueError(f"blocks {self.blocks} of {self.of}")
        if batch_size % self.of:
            raise UserError(
                f"batch_size is {batch_size}, of all {self.of} parts together: use a multiple of {self.of}"
            )
        size = batch_size // self.of
        found: np.ndarray = np.add.outer(
            size * np.array(self.blocks, np.int64), np.arange(size)
        ).ravel()
        return found

    def whole(self, own: int) -> int:
        """Returns the rows of the batch of which `own` rows are here."""
        return own * self.of // len(self.blocks)

    def place(self, row: int, own: int) -> int:
        """Returns where a row of the batch that belongs to it stands among its `own` rows."""
        block, within = divmod(row, own // len(self.blocks))
        return self.blocks.index(block) * (own // len(self.blocks)) + within


WHOLE = Share((0,), 1)
"""All rows."""
