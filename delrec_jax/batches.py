"""What an example and a batch are: frozen dataclasses that JAX sees as trees, with their shapes in the fields.

An example and a batch of it are of one type; in a batch every field has a leading axis B. A field `ids` is a text, which
batches pad on the right (`data.pipeline.collate`).
"""

from typing import Any, TypeVar, dataclass_transform

import chex

Record = TypeVar("Record")

Arrays = Any
"""NumPy's on the host, JAX's on the devices: for jaxtyping, as in `Int[Arrays, "*B T"]`."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def batch_type(cls: type[Record]) -> type[Record]:
    """Makes a class such a dataclass; fields are given by name."""
    made: type[Record] = chex.dataclass(frozen=True, mappable_dataclass=False)(cls)
    return made
