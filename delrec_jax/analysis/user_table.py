"""The users that a report shows one by one: history, target, and what every system would have recommended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from delrec_jax.analysis.labels import base_label
from delrec_jax.evaluation.systems import system_order

TOP = 5
"""Items per list that are shown."""

_HISTORY = 10
_RUN = ("system", "user")


@dataclass(frozen=True)
class Answer:
    """One system's answer for one user.

    Attributes:
      system: its label.
      rank: of the target, as text.
      titles: the first items of its list, each with whether it is the target; none if the system makes no lists.
    """

    system: str
    rank: str
    titles: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class ShownUser:
    """One row of the table.

    Attributes:
      user: its number in the rank records.
      group: a key of `UserTable.groups`.
      history: titles, the latest ones, oldest first.
      older: how many items come before these.
      target: the title that came next.
      cold: whether the target was never seen in training.
      main: the answers of the two systems that the groups are about.
      others: those of all others.
    """

    user: int
    group: str
    history: tuple[str, ...]
    older: int
    target: str
    cold: bool
    main: tuple[Answer, ...]
    others: tuple[Answer, ...]


@dataclass(frozen=True)
class UserTable:
    """Everything that the table shows.

    Attributes:
      rule: how the users were chosen.
      systems: the labels of the two systems that the groups are about.
      groups: what each group is called, with the numbers of users that are shown and that there are.
      users: the rows.
    """

    rule: str
    systems: tuple[str, str]
    groups: Mapping[str, str]
    users: tuple[ShownUser, ...]


def user_table(
    records: pl.DataFrame,
    lists: pl.DataFrame,
    pair: tuple[str, str],
    *,
    titles: Sequence[str],
    histories: Mapping[int, Sequence[int]],
    groups: Mapping[str, Sequence[int]],
    counts: Mapping[str, int],
    rule: str,
) -> UserTable:
    """Lays out the users of some groups.

    Args:
      records: rank records of one run (corpus, split, protocol, and what belongs to one teacher and seed).
      lists: columns system, user and items (best first, -1 where there are no more) of the same run.
      pair: the two systems that the groups are about.
      titles: of every item of the catalogue.
      histories: each shown user's items, oldest first.
      groups: the users that are shown, by group: found by the first system alone, by the second alone, by both, by neither.
      counts: how many users of each group there are.
      rule: how the users were chosen.
    """
    shown = [user for own in groups.values() for user in own]
    near = records.filter(pl.col("user").is_in(shown))
    facts = {row["user"]: row for row in near.filter(system=pair[0]).to_dicts()}
    ranks = {tuple(row[name] for name in _RUN): row["rank"] for row in near.to_dicts()}
    best = {
        (row["system"], row["user"]): row["items"]
        for row in lists.filter(pl.col("user").is_in(shown)).to_dicts()
    }
    others = sorted({system for system, _ in ranks} - set(pair), key=system_order)

    def answers(systems: Sequence[str], user: int) -> tuple[Answer, ...]:
        """What these systems say of a user, whose target they ranked."""
        target = facts[user]["target"]
        return tuple(
            _answer(system, ranks[system, user], best.get((system, user), ()), target, titles)
            for system in systems
            if (system, user) in ranks
        )

    rows = []
    for group, users in groups.items():
        for user in users:
            items, target = list(histories[user]), facts[user]["target"]
            rows.append(
                ShownUser(
                    user=user,
                    group=group,
                    history=tuple(titles[item] for item in items[-_HISTORY:]),
                    older=max(0, len(items) - _HISTORY),
                    target=titles[target],
                    cold=facts[user]["cold"],
                    main=answers(pair, user),
                    others=answers(others, user),
                )
            )
    named = (base_label(pair[0]), base_label(pair[1]))
    return UserTable(rule, named, _group_names(named, groups, counts), tuple(rows))


def _group_names(
    named: tuple[str, str], groups: Mapping[str, Sequence[int]], counts: Mapping[str, int]
) -> dict[str, str]:
    ours, theirs = named
    words = (f"{ours} right, {theirs} wrong", f"{theirs} right, {ours} wrong", "both right")
    return {
        name: f"{text}: {len(users)} of {counts[name]}"
        for (name, users), text in zip(groups.items(), (*words, "both wrong"), strict=True)
    }


def _answer(
    system: str, rank: float, items: Sequence[int], target: int, titles: Sequence[str]
) -> Answer:
    shown = tuple((titles[item], item == target) for item in items[:TOP] if item >= 0)
    text = "not a candidate" if rank == float("inf") else f"{rank:g}"
    return Answer(base_label(system), text, shown)
