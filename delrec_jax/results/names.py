"""The names of systems in `results/`: free strings, among them hybrids and systems of a labeled workdir.

`ease` is a system of the package, `hybrid(teacher+tfidf)` a sum of several, and `delrec/beside` the system `delrec` of a
workdir that was given as `beside=WORKDIR`.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from delrec_jax.analysis.labels import system_label
from delrec_jax.evaluation import systems
from delrec_jax.evaluation.systems import SYSTEMS, hybrid_parts


def labeled(system: str, of: str) -> str:
    """The name of a system of a workdir with this label ("" for none)."""
    return f"{system}/{of}" if of else system


def base(system: str) -> str:
    """The name of a system without the label of its workdir."""
    return system.partition("/")[0]


def label(system: str) -> str:
    """The label of a system's workdir, "" for none."""
    return system.partition("/")[2]


def parts(system: str) -> tuple[str, ...]:
    """The systems that a hybrid sums, or the system itself; without the workdir's label."""
    return hybrid_parts(base(system)) or (base(system),)


def untrained(system: str) -> bool:
    """Whether neither a seed nor a teacher can change the system."""
    return systems.untrained(base(system))


def order(system: str) -> tuple[object, ...]:
    """Sort key of a system: known ones as in the package's tables, then others, then hybrids; the oracle last."""
    found = parts(system)
    places = [SYSTEMS.index(name) if name in SYSTEMS else len(SYSTEMS) for name in found]
    return (found == ("oracle",), len(found), places, system)


def title(system: str, teacher: str) -> str:
    """What a table calls a system: `DELRec, beside (sasrec)`."""
    of = label(system)
    known = [
        system_label(name, "", teachers=False) if name in SYSTEMS else name
        for name in parts(system)
    ]
    text = " + ".join(known)
    return text + (f", {of}" if of else "") + (f" ({teacher})" if teacher else "")


def matches(system: str, teacher: str, pattern: str) -> bool:
    """Whether a pattern `SYSTEM` or `SYSTEM@TEACHER`, in which `*` stands for anything, names this system."""
    wanted, _, its_teacher = pattern.partition("@")
    return fnmatchcase(system, wanted) and fnmatchcase(teacher, its_teacher or "*")


def chosen(systems: Iterable[tuple[str, str]], pattern: str) -> list[tuple[str, str]]:
    """The (system, teacher) pairs that a pattern names, in the order of tables."""
    found = {one for one in systems if matches(*one, pattern)}
    return sorted(found, key=lambda one: (order(one[0]), one[1]))
