"""Which system each arm of a comparison is tested against: the same system of another run, or one named system.

An arm is a label of runs, and its systems are named `SYSTEM/LABEL` (`names`); runs without a label are the arm "".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from delrec_jax.errors import UserError
from delrec_jax.results import names
from delrec_jax.results.pairs import Pair
from delrec_jax.results.sources import Key, SystemRecords, same_ranks

System = tuple[str, str]
"""A system's name, with its label, and its teacher."""


def shared(cells: Mapping[Key, SystemRecords], labels: Sequence[str]) -> dict[Key, SystemRecords]:
    """The cells by system and then in the order of labels.

    What has the same ranks under every label (a teacher that all arms share, baselines) is kept once, without a label.
    """
    copies: dict[tuple[str, str, str], dict[str, dict[int | None, Key]]] = {}
    for key in cells:
        name = (key.protocol, names.base(key.system), key.teacher)
        copies.setdefault(name, {}).setdefault(names.label(key.system), {})[key.seed] = key
    found = dict(cells)
    for (_, system, _), by_label in copies.items():
        first, *others = by_label.values()
        everywhere = by_label.keys() == set(labels) or None in first
        if everywhere and all(_same(cells, first, other) for other in others):
            for key in (key for own in by_label.values() for key in own.values()):
                del found[key]
            for key in first.values():
                run = cells[key].run | {"system": system}
                found[key._replace(system=system)] = replace(cells[key], run=run)
    order = {label: place for place, label in enumerate(dict.fromkeys(("", *labels)))}

    def place(key: Key) -> tuple[object, ...]:
        name, label = names.base(key.system), names.label(key.system)
        return key.protocol, names.order(name), order[label], key.teacher, key.seed or 0

    return {key: found[key] for key in sorted(found, key=place)}


def chosen(there: Sequence[System], patterns: str) -> list[System]:
    """Of the systems those that patterns, separated by commas, name with or without their label.

    Raises:
      UserError: a pattern names none.
    """
    found: set[System] = set()
    for pattern in filter(None, patterns.split(",")):
        own = [one for one in there if _named(one, pattern)]
        if not own:
            raise UserError(
                f"--systems={patterns}: no system is called {pattern!r}; the runs have {_listed(there)}"
            )
        found.update(own)
    return [one for one in there if one in found]


def pairs_with(
    systems: Sequence[System],
    reference: str,
    *,
    there: Sequence[System],
    labels: Sequence[str],
    protocol: str,
) -> list[Pair]:
    """Each system with what it is tested against.

    Args:
      systems: the systems that are shown; the oracle is a bound and is not tested.
      reference: a label: each system is tested against the same one of that arm. Or a system, with or without its label and
        `@TEACHER`: every other system is tested against it, within its own arm if the arm has it. Where several are meant
        (of two teachers), it is tested against each.
      there: all systems.
      labels: all labels, "" for runs without one.
      protocol: of all pairs.

    Raises:
      UserError: there is no such label or system.
    """
    tested = [one for one in systems if names.parts(one[0]) != ("oracle",)]
    found = []
    for ours in tested:
        if reference in labels:
            if names.label(ours[0]) == reference:
                continue
            wanted = names.labeled(names.base(ours[0]), reference)
            candidates = [one for one in there if one[0] == wanted]
        else:
            candidates = [one for one in there if _named(one, reference)]
            if not candidates:
                raise UserError(
                    f"--reference={reference}: neither a label nor a system; labels: "
                    f"{', '.join(filter(None, labels)) or 'none'}; systems: {_listed(there)}"
                )
            if ours in candidates:
                continue
        found += [Pair(protocol, ours, one) for one in _nearest(ours, candidates)]
    return found


def _nearest(ours: System, candidates: Sequence[System]) -> list[System]:
    """Of the systems that could be meant those of the same arm, else of none, and of these the ones of the same teacher."""
    own = names.label(ours[0])
    for label in (own, ""):
        same = [one for one in candidates if names.label(one[0]) == label]
        if same:
            candidates = same
            break
    return [one for one in candidates if one[1] == ours[1]] or list(candidates)


def _same(
    cells: Mapping[Key, SystemRecords],
    one: Mapping[int | None, Key],
    other: Mapping[int | None, Key],
) -> bool:
    return one.keys() == other.keys() and all(
        same_ranks(cells[key], cells[other[seed]]) for seed, key in one.items()
    )


def _named(system: System, pattern: str) -> bool:
    name, teacher = system
    return any(names.matches(one, teacher, pattern) for one in (name, names.base(name)))


def _listed(systems: Iterable[System]) -> str:
    return ", ".join("@".join(one).removesuffix("@") for one in systems)
