"""The protocols of a run: which items each user's target is ranked among, the same for every system.

full            the whole catalogue without the items that the user has seen
full_with_seen  the whole catalogue
sampled-m       the stored candidates: the target and m - 1 items that occur nowhere in the user's sequence
rerank-m        the teacher's m best unseen items, in an order drawn by (seed, user); a target that is not among them is a miss
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from delrec_jax.config import Experiment
from delrec_jax.data.splits import Part, Split, padded_histories
from delrec_jax.errors import UserError
from delrec_jax.evaluation import metrics, records, user_ranks
from delrec_jax.evaluation.records import RecordKey
from delrec_jax.evaluation.user_ranks import RankFn, Ranks
from delrec_jax.padding import PAD_ITEM, few_lengths
from delrec_jax.random_items import distinct_items, stream_keys
from delrec_jax.teachers.list_files import inputs_hash
from delrec_jax.teachers.listed import ListedTeacher, ListSource
from delrec_jax.teachers.lists import RowsOf, top_lists
from delrec_jax.workdir.prepared import Data


class RowHistories:
    """Histories of a part's users by row, cut and padded to a few lengths: 8, 16, 32, ..., up to `longest`.

    Most histories are short. If users are scored in the order of their histories' lengths (`by_length`), batches need
    little padding. Each length is compiled once.

    Attributes:
      by_length: all rows, shortest history first.
    """

    def __init__(self, split: Split, part: Part, longest: int | None = None):
        self._split, self._part = split, part
        self._lengths = split.history_lengths(part)
        self._longest = int(self._lengths.max()) if longest is None else longest
        self.by_length = np.argsort(self._lengths, kind="stable")

    def __len__(self) -> int:
        return len(self._lengths)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the latest items of these rows, int32 [B, L], left-padded with -1."""
        length = few_lengths(self._lengths[rows].max())
        return padded_histories(self._split, self._part, min(length, self._longest), rows=rows)


def full_rankers(split: Split, part: Part) -> dict[str, RankFn]:
    """Returns the rankers of the two protocols over the whole catalogue, by name."""
    targets = split.target(part)
    return {
        "full": user_ranks.full_ranker(targets, RowHistories(split, part)),
        "full_with_seen": user_ranks.full_ranker(targets),
    }


def drawn_order(items: np.ndarray, names: Sequence[str], *, seed: int) -> np.ndarray:
    """Returns each row of `items` [E, m] in an order drawn by (seed, name), whatever the other rows are.

    The teacher's own order would be an answer: a language model that prefers the candidates listed first would reproduce it.

    Args:
      items: the teacher's lists, best first.
      names: a name for each row, such as the user's id.
      seed: seed of the draw.
    """
    count, none = items.shape[1], np.zeros(0, np.int64)
    keys = stream_keys(f"rerank/{seed}", names)
    places = distinct_items(keys, count, num_items=count, excluded=none)  # permutations [E, m]
    ordered: np.ndarray = np.take_along_axis(items, places, axis=1)
    return ordered


def drawn_rows(names: Sequence[str], count: int) -> np.ndarray:
    """Returns the rows of `count` of these users in ascending order, int [R]; of all if `count` is 0 or as large.

    Who is drawn depends on the names alone, and a larger draw holds every smaller one.
    """
    if not 0 < count < len(names):
        return np.arange(len(names))
    return np.sort(np.argsort(stream_keys("evaluate/users", names), kind="stable")[:count])


class Protocols:
    """All protocols of the test part, and the records of what is ranked under them.

    Arrays marked [E] have a row for each test user, whether ranked or not.

    Attributes:
      rows: int [R], the rows of the test users that are ranked, ascending: all of them, or a draw (`evaluate.users`).
      users: int [R], these users.
      candidates: for each protocol, its candidates [E, C] and their hash; None and "" for the whole catalogue.
      interactions: int [I], the interactions of each item in the training part.
      cold: bool [E], which targets do not occur in the training part.
      head: bool [E], which targets are among the most popular items.
    """

    def __init__(self, experiment: Experiment, data: Data):
        self._experiment, self._data = experiment, data
        self.split, self.targets = data.split, data.split.target("test")
        self._everyone, ids = data.split.users("test"), data.split.interactions.user_ids
        self._names = [ids[user] for user in self._everyone]
        self.rows = drawn_rows(self._names, experiment.evaluate.users)
        self.users = self._everyone[self.rows]
        self.interactions = counts = data.split.train_counts(data.num_items)
        self.cold = counts[self.targets] == 0
        self.head = metrics.head_items(counts)[self.targets]
        histories = data.split.histories("test")
        self._met_before = np.array([t in h for t, h in zip(self.targets, histories, strict=True)])
        self._unseen = data.num_items - data.split.seen_counts("test")
        sampled = data.candidates["test"]
        self.candidates: dict[str, tuple[np.ndarray | None, str]] = {
            "full": (None, ""),
            "full_with_seen": (None, ""),
            f"sampled-{sampled.items.shape[1]}": (sampled.items, sampled.hash),
        }

    def add_rerank(self, teacher: ListSource) -> None:
        """Adds `rerank-m`: the teacher's best unseen items for each user who is ranked; nothing for the others.

        Raises:
          UserError: a user has fewer unseen items than that, or fewer in the teacher's list.
        """
        count = self._experiment.candidates.rerank
        unseen = int(self._unseen.min())
        if count > unseen:
            raise UserError(
                f"candidates.rerank is {count}, but a test user leaves only {unseen} of {self._data.num_items} items unseen; "
                f"lower it to {unseen} or less"
            )
        lengths, allowed = self.split.history_lengths("test"), np.ones(self._data.num_items, bool)
        every, ranked = RowHistories(self.split, "test"), self.rows
        seen = RowsOf(len(ranked), lambda places: every(ranked[places]))
        if isinstance(teacher, ListedTeacher):
            asked, key = (self.users, lengths[ranked]), "candidates.rerank"
            best = teacher.top_lists(*asked, top_h=count, key=key, allowed=allowed, seen=seen)
        else:
            length = self._experiment.teacher.reads(int(lengths.max()))
            # All of one length, as a teacher's scores may differ in their last bits with that of its input.
            histories = RowsOf(
                len(ranked),
                lambda places: padded_histories(self.split, "test", length, rows=ranked[places]),
            )
            best, _ = top_lists(teacher, histories, top_h=count, allowed=allowed, seen=seen)
        names = [self._names[row] for row in ranked]
        items = np.full((len(self.targets), count), PAD_ITEM, best.dtype)
        items[ranked] = drawn_order(best, names, seed=self._experiment.candidates.seed)
        self.candidates[f"rerank-{count}"] = (items, inputs_hash(items))

    def rankers(self, *, full_scores: bool) -> Mapping[str, RankFn]:
        """Returns rankers by protocol: all of them on catalogue scores, or those with candidates on candidate scores."""
        chosen = {
            protocol: user_ranks.candidate_ranker(self.targets, items, full_scores=full_scores)
            for protocol, (items, _) in self.candidates.items()
            if items is not None
        }
        return full_rankers(self.split, "test") | chosen if full_scores else chosen

    def record_key(
        self,
        system: str,
        *,
        teacher: str | None = None,
        seed: int | None = None,
        step: int = -1,
        beside: str = "",
    ) -> RecordKey:
        """Returns what the records of one system have in common; teacher and seed default to the run's."""
        config = self._experiment
        return RecordKey(
            corpus=self._data.corpus.name,
            split=self.split.kind,
            protocol="",
            system=system,
            teacher=config.teacher.name if teacher is None else teacher,
            seed=config.seed if seed is None else seed,
            step=step,
            beside=beside,
        )

    def records(self, ranks: Mapping[str, Ranks], key: RecordKey) -> list[pl.DataFrame]:
        """Returns the rank records of one system, one table per protocol."""
        return [self._record(replace(key, protocol=name), found) for name, found in ranks.items()]

    def _record(self, key: RecordKey, ranks: Ranks) -> pl.DataFrame:
        items, digest = self.candidates[key.protocol]
        # A target that the user has already had (data.repeats=keep) is ranked as well.
        ranked = (self._unseen + self._met_before)[self.rows]
        everything = ranked if key.protocol == "full" else self._data.num_items
        return records.record_table(
            replace(key, candidate_hash=digest),
            users=self.users,
            targets=self.targets[self.rows],
            ranks=ranks.rank,
            ties=ranks.ties,
            candidates=everything if items is None else items.shape[1],
            cold=self.cold[self.rows],
            head=self.head[self.rows],
        )
