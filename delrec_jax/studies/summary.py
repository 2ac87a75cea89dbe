"""The result of a study: aggregates of its finished runs, its arms against the reference, and what validation chooses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.results import names
from delrec_jax.results.aggregate import aggregates
from delrec_jax.results.pairs import Pair, expand, identical, tests
from delrec_jax.results.sources import Key, Source, SystemRecords, gather
from delrec_jax.results.summary import refuse_user_rows
from delrec_jax.results.user_groups import user_groups
from delrec_jax.studies.beyond import without_costs
from delrec_jax.studies.opening import Opened
from delrec_jax.studies.runs import StudyRun
from delrec_jax.studies.selection import best_arm, validation


def summarise(
    opened: Opened, lists: Sequence[Mapping[str, Any]], *, show_test: bool = False
) -> dict[str, Any]:
    """Aggregates over users and seeds of all runs that are finished.

    Args:
      opened: the study.
      lists: what its finished runs recommend (`beyond.study_rows`).
      show_test: whether a tuned study shows the test figures of arms that validation did not choose.

    Returns:
      As `results.summary.collect` writes it, less the provenance, with `study`: what was asked, and `unfinished` runs.

    Raises:
      UserError: no run is finished, or the runs do not belong together.
    """
    study = opened.study
    if not (done := opened.done):
        raise UserError(f"{opened.root}: no run is finished yet, so there is nothing to summarize")
    ran = study.command == "run"
    chosen = validation(study, done, opened.workdirs, required=study.tuned) if ran else {}
    # Arms with different seeds are not compared: each time another one ended, another arm's test figures would be shown.
    whole = len(done) == len(opened.runs)
    selected = best_arm(chosen) if study.tuned and chosen and whole else ""
    hidden = study.tuned and not show_test
    shown = [run for run in done if not hidden or run.arm.name in (selected, study.reference)]
    cells = _cells(opened, shown)
    labels = {"", *(run.arm.name for run in shown)}
    first = next(iter(cells.values()))
    found = {
        "corpus": first.run["corpus"],
        "split": first.run["split"],
        "users": len(first.users),
        "study": {
            **_asked(opened),
            "validation": chosen,
            "selected": selected,
            "unfinished": [run.name for run in opened.runs if run not in done],
        },
        **_counted(opened, cells),
        "hybrids": [],
        "comparisons": _compared(opened, cells),
        "beyond": without_costs([row for row in lists if row["label"] in labels]),
    }
    refuse_user_rows(found)
    return found


def _asked(opened: Opened) -> dict[str, Any]:
    study = dataclasses.asdict(opened.study)
    return {**study, "arms": [_plain(arm) for arm in study["arms"]]}


def _plain(arm: Mapping[str, Any]) -> dict[str, Any]:
    return {**arm, "changes": {key: _text(value) for key, value in arm["changes"].items()}}


def _text(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cells(opened: Opened, runs: Sequence[StudyRun]) -> dict[Key, SystemRecords]:
    """The cells of the arms' systems, labeled by arm, and of the systems beside them."""
    study = opened.study

    shifts = {run.arm.name: run.arm.seed_shift for run in runs}
    of_arms = gather(
        [Source(opened.workdirs[run.name].root, run.arm.name, opened.records(run)) for run in runs]
    )
    wanted = {
        names.labeled(system, run.arm.name) for run in runs for system in study.systems_of(run.arm)
    }
    beside = {names.labeled(system, study.reference): system for system in study.context}
    found: dict[Key, SystemRecords] = {}
    for key, cell in of_arms.items():
        if key.system in wanted:
            found |= [_of_study(key, cell, shifts)]
        if key.system in beside:
            own, its = _of_study(key, cell, shifts)
            found |= [_renamed(own, its, system=beside[key.system])]
    if not found:
        raise UserError(
            f"{opened.root}: none of the finished runs has a system {', '.join(sorted(wanted))}"
        )
    places = {arm.name: place for place, arm in enumerate(study.arms)}
    return dict(sorted(found.items(), key=lambda one: _place(one[0], places)))


def _place(key: Key, places: Mapping[str, int]) -> tuple[Any, ...]:
    """Where a row belongs: systems as in every table, and the arms of a system in the study's order."""
    system, _, arm = key.system.partition("/")
    return key.protocol, names.order(system), places.get(arm, -1), key.teacher, key.seed or 0


def _of_study(
    key: Key, cell: SystemRecords, shifts: Mapping[str, int]
) -> tuple[Key, SystemRecords]:
    """A cell under the seed of the study, so that arms whose seeds are shifted can be paired with others."""
    shift = shifts[key.system.partition("/")[2]]
    if key.seed is None or not shift:
        return key, cell
    return _renamed(key, cell, seed=key.seed - shift)


def _renamed(key: Key, cell: SystemRecords, **fields: Any) -> tuple[Key, SystemRecords]:
    """A cell under another system or seed."""
    return key._replace(**fields), dataclasses.replace(cell, run=cell.run | fields)


def _counted(opened: Opened, cells: Mapping[Key, SystemRecords]) -> dict[str, list[dict[str, Any]]]:
    """Aggregates of all groups of users that tables know, and under the study's protocol of those by history and count."""
    study, found = opened.study, aggregates(cells)
    own = {key: cell for key, cell in cells.items() if key.protocol == study.protocol}
    if not (study.by_users and own):
        return found
    users = next(iter(own.values())).users["user"].to_numpy()
    first = opened.done[0]
    groups = user_groups(opened.records(first).parent, users=users) or {}
    further = aggregates(own, of=groups)
    return {name: rows + further[name] for name, rows in found.items()}


def _compared(opened: Opened, cells: Mapping[Key, SystemRecords]) -> list[dict[str, Any]]:
    """Every row of the tables but the reference's own against it, under the study's protocol."""
    study = opened.study
    arms = {arm.name: arm for arm in study.arms}
    main = names.labeled(study.systems_of(arms[study.reference])[0], study.reference)
    there = dict.fromkeys(key.system for key in cells if key.protocol == study.protocol)
    if main not in there:
        return []
    others = [name for name in there if name not in (main, "oracle")]
    patterns = [(f"{_exact(system)}@*", f"{_exact(main)}@*") for system in others]
    found = [
        pair for one in patterns for pair in _of_one_teacher(expand(cells, one, study.protocol))
    ]
    # Arms that share a stage share its systems: their tests would only make those of the others stricter.
    asked = [(pair, "all") for pair in dict.fromkeys(found) if not identical(cells, pair)]
    return tests(cells, asked, metrics=(study.metric,))


def _of_one_teacher(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of one recommender; all of them where arms differ in their recommender."""
    own = [pair for pair in pairs if pair.ours[1] == pair.theirs[1] or "" in _teachers(pair)]
    return own or list(pairs)


def _teachers(pair: Pair) -> tuple[str, str]:
    return pair.ours[1], pair.theirs[1]


def _exact(system: str) -> str:
    """The system as a pattern: brackets and stars in its name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in system)
