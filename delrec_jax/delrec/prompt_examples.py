"""Stage 1's examples: TA and RPS texts with candidates and target distributions, for three sources of labels.

`teacher`   RPS labels are the teacher's lists for the text's own history.
`shuffled`  the lists are dealt to other histories: the control that shows whether distillation is real.
`true`      the text is LSR's and the label the item that really came next: what labels alone can do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.data import prompts
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.splits import partition_users
from delrec_jax.delrec import pattern_simulating, temporal_analysis
from delrec_jax.padding import PAD_ITEM
from delrec_jax.teachers.lists import ListSettings, TeacherLists, distillation_lists
from delrec_jax.workdir.assets import Data, Language, load_data
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.workspace import Workspace

TA, RPS = 0, 1


@dataclass(frozen=True)
class Rows:
    """Positions of training histories: the history is the user's first `ends` items.

    Attributes:
      users: int32 [N].
      ends: int32 [N].
    """

    users: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Texts:
    """What an example is drawn from.

    Attributes:
      rows: RPS (or LSR) positions.
      lists: candidates and teacher's scores for each row, already shuffled for the control.
      labels: the item that follows each row, for `true`; unused otherwise.
      ta_ends: user to the lengths of the training part at which TA can be asked; no user without one.
      known: items that occur in the training part: negatives come from these.
    """

    source: str
    rows: Rows
    lists: TeacherLists
    labels: np.ndarray
    ta_ends: Mapping[int, np.ndarray]
    known: np.ndarray
    pieces: Pieces
    slots: np.ndarray
    data: Data
    config: Experiment

    @cached_property
    def ta_users(self) -> np.ndarray:
        """Users of whose training part TA can be asked."""
        return np.array(list(self.ta_ends), np.int64)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One text: TA with the config's share (never for `true`), else the row's."""
        if (
            self.source != "true"
            and len(self.ta_users)
            and rng.random() < self.config.distill.ta_share
        ):
            return self.temporal(int(rng.choice(self.ta_users)), rng)
        return self.row(index, rng)

    def temporal(self, user: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A TA text of a user, at a random place of the training part."""
        sequence = self.data.split.train.history(user)
        ends = self.ta_ends[user]
        end = int(ends[rng.integers(0, len(ends))])
        label = int(sequence[end - 2])
        candidates = self._with_negatives(label, self.data.split.train.history(user), rng)
        text = prompts.temporal_analysis(
            self.pieces, sequence[:end], pattern=self.slots, candidates=candidates
        )
        target = temporal_analysis.candidate_target(candidates, label)
        return _example(text, candidates, target, TA)

    def _with_negatives(self, label: int, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return among_negatives(label, self.known, seen, self.config.distill.num_candidates, rng)

    def row(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A row's text: RPS with its list, or (`true`) LSR with its label."""
        if self.source == "true":
            history = self.data.split.train.history(int(self.rows.users[index]))
            shown = history[: self.rows.ends[index]]
            label = int(self.labels[index])
            candidates = self._with_negatives(label, history, rng)
            target = temporal_analysis.candidate_target(candidates, label)
            text = prompts.recommendation(
                self.pieces, shown, pattern=self.slots, candidates=candidates
            )
            return _example(text, candidates, target, RPS)
        order = rng.permutation(self.lists.items.shape[1])
        return self.listed(index, order, self.slots)

    def listed(self, index: int, order: np.ndarray, pattern: np.ndarray) -> dict[str, np.ndarray]:
        """The RPS text of a row, its candidates in the given order."""
        distill = self.config.distill
        shown = self.data.split.train.history(int(self.rows.users[index]))[: self.rows.ends[index]]
        items = self.lists.items[index]
        target = pattern_simulating.teacher_target(
            self.lists.scores[index], kind=distill.rps_label, temperature=distill.temperature
        )
        text = prompts.pattern_simulating(
            self.pieces,
            shown,
            pattern=pattern,
            candidates=items[order],
            ranked=items[1 : distill.top_h],
        )
        return _example(text, items[order], target[order], RPS)


def _example(text, candidates, target, task: int) -> dict[str, np.ndarray]:
    return {"ids": text, "candidates": candidates, "targets": target, "task": np.int32(task)}


def user_parts(ws: Workspace, data: Data) -> dict[str, np.ndarray]:
    """Who trains the prompt, who selects it, and who is only reported on."""
    config = ws.experiment.distill
    fractions = {
        "train": config.train_users,
        "valid": config.valid_users,
        # Rounded: 1 - 0.9 - 0.1 is a little below 0.
        "heldout": round(1 - config.train_users - config.valid_users, 9),
    }
    return partition_users(data.split.training_users, fractions, ws.experiment.seed)


def latest_rows(data: Data, users: np.ndarray, positions: int, *, labelled: bool) -> Rows:
    """The latest `positions` histories of each user's training part; labelled ones have a next item there."""
    pairs = []
    for user in users:
        length = int(data.split.train.lengths[user]) - (1 if labelled else 0)
        pairs += [(user, end) for end in range(max(1, length - positions + 1), length + 1)]
    table = np.array(pairs, np.int32).reshape(-1, 2)
    return Rows(table[:, 0], table[:, 1])


def make_lists(ws: Workspace, data: Data, rows: Rows, *, seed: int) -> TeacherLists:
    """The teacher's lists for rows; items it never saw, and items the user has seen, stay out."""
    config, length = ws.experiment.distill, ws.experiment.teacher.max_length
    longest = int(rows.ends.max())
    seen = np.full((len(rows.users), longest), PAD_ITEM, np.int32)
    histories = np.full((len(rows.users), length), PAD_ITEM, np.int32)
    for index, (user, end) in enumerate(zip(rows.users, rows.ends, strict=True)):
        history = data.split.train.history(int(user))[:end]
        seen[index, :end] = history
        histories[index, max(0, length - end) :] = history[-length:]
    settings = ListSettings(config.top_h, config.num_candidates, seed)
    return distillation_lists(
        load_teacher(ws, data).scores,
        histories,
        settings=settings,
        allowed=~data.split.cold_items(data.num_items),
        seen=seen,
    )


def make_texts(
    ws: Workspace,
    language: Language,
    users: np.ndarray,
    source: str,
    lists: TeacherLists | None = None,
) -> Texts:
    """Everything the examples of one source are drawn from, for these users."""
    data, config = load_data(ws), ws.experiment
    rows = latest_rows(data, users, config.distill.positions, labelled=source == "true")
    train = data.split.train
    labels = train.items[
        train.offsets[rows.users] + np.minimum(rows.ends, train.lengths[rows.users] - 1)
    ]
    if lists is None:
        empty = np.zeros((0, config.distill.num_candidates))
        lists = TeacherLists(empty.astype(np.int32), empty.astype(np.float32))
    if source == "shuffled":
        order = _of_other_users(rows.users, prng.generator(config.seed, "distill/shuffle"))
        lists = TeacherLists(lists.items[order], lists.scores[order])
    if source != "true" and len(lists.items) != len(rows.users):
        raise ValueError(f"{len(lists.items)} lists for {len(rows.users)} rows")
    ends = {int(u): prompts.ta_ends(train.history(int(u)), config.prompts) for u in users}
    return Texts(
        source=source,
        rows=rows,
        lists=lists,
        labels=labels,
        ta_ends={user: found for user, found in ends.items() if len(found)},
        known=np.flatnonzero(~data.split.cold_items(data.num_items)),
        pieces=language.pieces,
        slots=language.slots,
        data=data,
        config=config,
    )


def _of_other_users(users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation of the rows that gives every row one of another user.

    Rows stand grouped by user in a random circle of users and are turned by the largest group.
    """
    everyone, counts = np.unique(users, return_counts=True)
    circle = rng.permutation(len(everyone))
    place = np.empty(len(everyone), int)
    place[circle] = np.arange(len(everyone))
    grouped = np.argsort(place[np.searchsorted(everyone, users)], kind="stable")
    order = np.empty(len(users), int)
    order[grouped] = np.roll(grouped, -int(counts.max()))
    return order


def among_negatives(
    label: int, known: np.ndarray, seen: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The label and `count` - 1 unseen items that the training part knows, int32, in random order."""
    pool = np.setdiff1d(known, np.append(seen, label))
    negatives = rng.choice(pool, count - 1, replace=False)
    return rng.permutation(np.append(negatives, label)).astype(np.int32)
