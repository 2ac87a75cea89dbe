"""What a train step computes and reads, counted in the program itself, before any compiler sees it.

A product [b, m, k] x [b, k, n] counts 2 b m n k operations. What a loop repeats counts as often as the loop runs; what the step
does not need does not count. JAX names what `remat` computes a second time, so that it can be told apart: it takes time but is
no progress, and MFU leaves it out.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var
from jax.interpreters.partial_eval import dce_jaxpr

from delrec_jax.training.sharding import key_names
from delrec_jax.training.task import Task

Path = tuple[str, ...]
_AGAIN = "rematted_computation"
_REMAT = "checkpoint"
# What only gives an array another form: whoever uses the result uses the array.
_SAME = frozenset(
    ("convert_element_type", "reshape", "transpose", "squeeze", "sharding_constraint", "copy")
)


@dataclass(frozen=True)
class Work:
    """What one step computes and reads, over all devices together.

    Attributes:
      useful: operations of the forward and backward passes.
      again: operations that are computed a second time because their results were not kept.
      reads: how often the step reads each frozen leaf that it reads at all, by path: by default once in the forward pass and
        once in each backward pass.
    """

    useful: float
    again: float
    reads: Mapping[Path, int]

    @property
    def total(self) -> float:
        """All operations."""
        return self.useful + self.again


def work_of(planned: Task) -> Work:
    """Counts a task's work per step; nothing is compiled."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    asked = (planned.state, planned.frozen, planned.batch, key)
    traced = planned.step.trace(*asked).jaxpr
    needed, used = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    paths = [key_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(asked)]
    kept = [path for path, kept in zip(paths, used, strict=True) if kept]
    readers = _Readers()
    reads = {
        path[1:]: readers.count(needed, var)
        for path, var in zip(kept, needed.invars, strict=True)
        if path[0] == "1"
    }
    return Work(*_operations(needed), reads)


def _operations(jaxpr: Jaxpr, again: bool = False) -> tuple[float, float]:
    """Returns the operations of the first computation, and of what is computed again."""
    found = [0.0, 0.0]
    for equation in jaxpr.eqns:
        repeated = again or _AGAIN in str(equation.source_info.name_stack)
        if equation.primitive.name == "dot_general":
            found[repeated] += _product(equation)
        inner = [_operations(each, repeated) for each in _inner(equation)]
        if equation.primitive.name == "cond":  # one branch runs: the largest counts
            inner = [max(inner, key=sum)]
        for first, second in inner:
            found[0] += _rounds(equation) * first
            found[1] += _rounds(equation) * second
    return found[0], found[1]


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval, equation.outvars[0].aval
    return float(2 * prod(out.shape) * prod(left.shape[axis] for axis in contracted))


def _rounds(equation: Any) -> int:
    """Returns how often an equation runs what is inside it."""
    if equation.primitive.name == "shard_map":  # what is inside is one device's part
        return int(equation.params["mesh"].size)
    return int(equation.params["length"]) if equation.primitive.name == "scan" else 1


def _inner(equation: Any) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


class _Readers:
    """Counts the readers of an array: a product, a loop over its leading axis, or a block that is computed again."""

    def __init__(self) -> None:
        self._readers: dict[int, dict[Var, list[tuple[Any, int]]]] = {}

    def count(self, jaxpr: Jaxpr, var: Var) -> int:
        """Returns how often a program reads one of its variables."""
        return sum(
            self._of(jaxpr, equation, place) for equation, place in self._index(jaxpr).get(var, ())
        )

    def _of(self, jaxpr: Jaxpr, equation: Any, place: int) -> int:
        name, inner = equation.primitive.name, list(_inner(equation))
        if name in _SAME:
            return self.count(jaxpr, equation.outvars[0])
        if name == "scan" and place < equation.params["num_consts"]:
            return _rounds(equation) * self.count(inner[0], inner[0].invars[place])
        nested = len(inner) == 1 and len(inner[0].invars) == len(equation.invars)
        if nested and name not in ("scan", _REMAT):
            return self.count(inner[0], inner[0].invars[place])
        return 1

    def _index(self, jaxpr: Jaxpr) -> dict[Var, list[tuple[Any, int]]]:
        if id(jaxpr) not in self._readers:
            found = defaultdict[Var, list[tuple[Any, int]]](list)
            for equation in jaxpr.eqns:
                for place, var in enumerate(equation.invars):
                    if isinstance(var, Var):
                        found[var].append((equation, place))
            self._readers[id(jaxpr)] = found
        return self._readers[id(jaxpr)]
