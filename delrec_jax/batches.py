"""The form of examples and batches: frozen dataclasses that JAX treats as trees, with the shapes stated in their fields.

An example and a batch of examples have the same type; in a batch every field has a leading axis B. A field `ids` is a text,
and `counted` and `owners` have a number for each of its tokens; batches pad them on the right (`data.pipeline.collate`).
"""

from typing import Any, TypeVar, dataclass_transform

import chex

Record = TypeVar("Record")

Arrays = Any
"""Arrays of NumPy on the host and of JAX on the devices; for jaxtyping, as in `Int[Arrays, "*B T"]`."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def batch_type(cls: type[Record]) -> type[Record]:
    """Turns a class into such a dataclass; fields are passed by name."""
    made: type[Record] = chex.dataclass(frozen=True, mappable_dataclass=False)(cls)
    return made
