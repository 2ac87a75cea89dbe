"""Hugging Face's names of a model's tensors and the paths of our tree: one table per family.

The two templates of a row share their fields: ours is a pattern that a path is matched with, theirs is filled with what was
found. The table's paths are those of the unrolled layout (`layer_stacking`); a `Leaf` knows the names of the tensors that it
is made of in either layout. The tables are in `t5_names` and `bert_names`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from delrec_jax.language.layer_stacking import STACKED

TreePath = tuple[str, ...]


class _Row(NamedTuple):
    theirs: str
    transposed: bool
    our_pattern: re.Pattern[str]


@dataclass(frozen=True)
class Names:
    """The names of one family.

    Attributes:
      model: the family's name, for messages.
      table: Hugging Face's template, ours, and whether it is a kernel: PyTorch stores kernels [out, in], we [in, out].
      fields: what each field of the templates matches.
      renamed: other names that files use, as (pattern, replacement) of a part of a name; the first patterns come first.
      ignored: matches tensors that files may hold and the model does not use.
    """

    model: str
    table: tuple[tuple[str, str, bool], ...]
    fields: Mapping[str, str]
    renamed: tuple[tuple[str, str], ...] = ()
    ignored: str = r"(?!)"

    def canonical(self, name: str) -> str | None:
        """Returns the name in the table of a tensor in a file; None if the model does not use the tensor."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return None if re.fullmatch(self.ignored, name) else name

    def hf_name(self, path: TreePath) -> tuple[str, bool]:
        """Returns the tensor that a leaf is made of.

        Args:
          path: path of a leaf in the unrolled tree.

        Returns:
          Hugging Face's name and whether the tensor is transposed there.

        Raises:
          KeyError: the model has no such leaf.
        """
        for row in self._rows:
            if found := row.our_pattern.fullmatch("/".join(path)):
                return row.theirs.format(**found.groupdict()), row.transposed
        raise KeyError("/".join(path))

    @cached_property
    def _rows(self) -> tuple[_Row, ...]:
        return tuple(
            _Row(theirs, kernel, self._pattern(ours)) for theirs, ours, kernel in self.table
        )

    def _pattern(self, template: str) -> re.Pattern[str]:
        """Returns the template as a pattern, with each field as a named group."""
        literal = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
        named = {name: f"(?P<{name}>{pattern})" for name, pattern in self.fields.items()}
        return re.compile(literal.format(**named))


class Leaf(NamedTuple):
    """A leaf of our tree and the tensors that it is made of: one, or one per layer if layers are stacked."""

    path: TreePath
    shape: tuple[int, ...]
    dtype: np.dtype
    names: tuple[str, ...]
    transposed: bool

    @property
    def stacked(self) -> bool:
        """Whether the first axis is layers."""
        return STACKED in self.path

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of each tensor in its file."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape


def named_leaves(shapes: Any, names: Names) -> list[Leaf]:
    """Returns all leaves of a model with the tensors that they are made of.

    Args:
      shapes: the model's parameters as shapes, in either layout.
      names: the family's names.
    """
    found = []
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        named = [names.hf_name(one) for one in unrolled_paths(path, leaf.shape)]
        theirs = tuple(name for name, _ in named)
        found.append(Leaf(path, leaf.shape, leaf.dtype, theirs, transposed=named[0][1]))
    return found


def unrolled_paths(path: TreePath, shape: Sequence[int]) -> list[TreePath]:
    """Returns the leaf's own path, or one path per layer if its first axis is layers."""
    if STACKED not in path:
        return [path]
    return [
        tuple(f"block_{layer}" if part == STACKED else part for part in path)
        for layer in range(shape[0])
    ]
