"""A teacher that exists only as lists: the best items for some histories, made by another system.

It cannot score a history that it has no list for. Of an item that a list leaves out it is only known that it comes after all
listed ones. Among the candidates of a label its score is -inf, so that it has the probability 0 in a list-wise label: of a
teacher that scores the whole catalogue, random items have next to none. Where the catalogue is ranked, all such items tie, one
mean step between listed scores below the last of them: a finite score, so that the sums of hybrids keep them behind it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.padding import few_lengths
from delrec_jax.teachers.lists import (
    Histories,
    ListSettings,
    TeacherLists,
    drawn_negatives,
    some_rows,
)
from delrec_jax.teachers.protocol import PlacedScores, ScoreFn

_BLOCK = 1024  # rows whose seen items are one array


@dataclass(frozen=True)
class ListedTeacher:
    """Lists of items for N histories, each the first items of one user, M listed items in all.

    Attributes:
      users: int32 [N], the user's number.
      lengths: int32 [N], number of the user's first items that the list was made after; rows ascend by (user, length).
      offsets: int64 [N+1]; list n owns items[offsets[n]:offsets[n + 1]].
      items: int32 [M], best first.
      scores: float32 [M], finite, never increasing within a list.
      user_ids: the users' ids, for messages.
      source: the file that they come from, for messages.
    """

    users: Int[np.ndarray, " N"]
    lengths: Int[np.ndarray, " N"]
    offsets: Int[np.ndarray, " N+1"]
    items: Int[np.ndarray, " M"]
    scores: Float[np.ndarray, " M"]
    user_ids: tuple[str, ...]
    source: str

    @cached_property
    def _keys(self) -> Int[np.ndarray, " N"]:
        return _key(self.users, self.lengths)

    def places(
        self, users: Int[np.ndarray, " Q"], lengths: Int[np.ndarray, " Q"]
    ) -> Int[np.ndarray, " Q"]:
        """The number of each asked history's list.

        Raises:
          UserError: there is none; the first such history is named.
        """
        asked = _key(users, lengths)
        found = np.minimum(np.searchsorted(self._keys, asked), len(self._keys) - 1)
        missing = np.flatnonzero(self._keys[found] != asked)
        if len(missing):
            first = missing[0]
            raise UserError(
                f"{self.source}: {len(missing)} of {len(asked)} histories that are asked have no list, the first is "
                f"{self._name(users[first], lengths[first])}: add them; `delrec histories` writes all that are needed"
            )
        return found

    def catalogue_scores(
        self, users: Int[np.ndarray, " Q"], lengths: Int[np.ndarray, " Q"], num_items: int
    ) -> Float[Array, "Q I"]:
        """The scores of all items after each asked history; finite, and the same for all items that are not listed.

        Only the lists travel to the device, padded to one of a few lengths.

        Raises:
          UserError: see `places`.
        """
        places = self.places(users, lengths)
        starts, counts = self.offsets[places], self.offsets[places + 1] - self.offsets[places]
        place = np.arange(few_lengths(int(counts.max(initial=1))))
        listed = place < counts[:, None]  # [Q, K]
        index = np.minimum(starts[:, None] + place, len(self.items) - 1)
        items = np.where(listed, self.items[index], num_items)  # no item: left out
        scores = self.scores[index]
        found: Array = _scattered(items, scores, _below(scores, counts), num_items)
        return found

    def top_lists(
        self,
        users: Int[np.ndarray, " Q"],
        lengths: Int[np.ndarray, " Q"],
        *,
        top_h: int,
        key: str,
        allowed: Bool[np.ndarray, " I"],
        seen: Histories,
    ) -> Int[np.ndarray, "Q h"]:
        """The best items after each asked history, best first.

        Args:
          users: whose histories.
          lengths: number of their items.
          top_h: h, items per list.
          key: the setting that h comes from, for messages.
          allowed: False excludes an item from all lists.
          seen: items to leave out [Q, S], one row per history (or what makes its rows), padded with -1 anywhere.

        Raises:
          UserError: a history has no list, or fewer than h allowed unseen items in it.
        """
        asked = self.places(users, lengths), users, lengths
        return self._best(*asked, top_h=top_h, key=key, allowed=allowed, seen=seen)

    def distillation_lists(
        self,
        users: Int[np.ndarray, " Q"],
        lengths: Int[np.ndarray, " Q"],
        *,
        settings: ListSettings,
        allowed: Bool[np.ndarray, " I"],
        seen: Histories,
    ) -> TeacherLists:
        """The top h items and m - h random negatives, the same that a teacher with these scores would have.

        Args:
          users: see `top_lists`.
          lengths: see `top_lists`.
          settings: h, m and the seed of the negatives.
          allowed: see `top_lists`.
          seen: see `top_lists`.

        Returns:
          The lists; a negative has its listed score, or -inf where it is not listed.

        Raises:
          UserError: see `top_lists`; or a row has fewer than m allowed unseen items.
        """
        places, key = self.places(users, lengths), "distill.top_h"
        asked = places, users, lengths
        top = self._best(*asked, top_h=settings.top_h, key=key, allowed=allowed, seen=seen)
        known, negatives = np.flatnonzero(allowed), []
        for rows in _blocks(len(users)):
            taken = np.concatenate([some_rows(seen, rows), top[rows]], axis=1)
            negatives.append(drawn_negatives(known, taken, settings, rows))
        items = np.concatenate([top, np.concatenate(negatives)], axis=1)
        scores = np.full(items.shape, -np.inf, np.float32)
        for row, place in enumerate(places):
            mine = slice(self.offsets[place], self.offsets[place + 1])
            order = np.argsort(self.items[mine])
            listed, its_scores = self.items[mine][order], self.scores[mine][order]
            at = np.minimum(np.searchsorted(listed, items[row]), len(listed) - 1)
            scores[row] = np.where(listed[at] == items[row], its_scores[at], -np.inf)
        return TeacherLists(items=items, scores=scores)

    def _best(
        self,
        places: np.ndarray,
        users: np.ndarray,
        lengths: np.ndarray,
        *,
        top_h: int,
        key: str,
        allowed: np.ndarray,
        seen: Histories,
    ) -> Int[np.ndarray, "Q h"]:
        """The best allowed unseen items of the lists at these places, which belong to these users and lengths."""
        tops = np.zeros((len(places), top_h), np.int32)
        closed = (had for rows in _blocks(len(places)) for had in some_rows(seen, rows))
        for row, (place, had) in enumerate(zip(places, closed, strict=True)):
            listed = self.items[self.offsets[place] : self.offsets[place + 1]]
            best = listed[allowed[listed] & ~np.isin(listed, had)][:top_h]
            if len(best) < top_h:
                raise UserError(
                    f"{self.source}: the list of {self._name(users[row], lengths[row])} has {len(listed)} items, of which "
                    f"{len(best)} can be recommended (the user has not had them, and for stage 1 somebody had them in the "
                    f"training part), but {key} asks for {top_h}: list more items, or lower {key}"
                )
            tops[row] = best
        return tops

    def _name(self, user: int, length: int) -> str:
        return f"user_id {self.user_ids[user]!r}, length {length}"


ListSource = ScoreFn | PlacedScores | ListedTeacher
"""What a teacher's best items are taken from: its scores (perhaps over a mesh), or the lists that it consists of."""


@partial(jax.jit, static_argnames="num_items")
def _scattered(items: Array, scores: Array, below: Array, num_items: int) -> Float[Array, "Q I"]:
    """`below` of each row everywhere but at its items."""
    found = jnp.broadcast_to(below[:, None], (len(below), num_items))
    return found.at[jnp.arange(len(below))[:, None], items].set(scores, mode="drop")


def _below(
    scores: Float[np.ndarray, "Q K"], counts: Int[np.ndarray, " Q"]
) -> Float[np.ndarray, " Q"]:
    """A score below the first `counts` of each row, by the mean step between them; by 1 if they do not differ; float32."""
    highest, lowest = scores[:, 0], scores[np.arange(len(scores)), counts - 1]  # of a list
    step = (highest.astype(np.float64) - lowest) / np.maximum(counts - 1, 1)
    below = lowest - np.where(step > 0, step, 1.0)
    # The step may be lost in the rounding of large scores.
    found: np.ndarray = np.minimum(below, np.nextafter(lowest, np.float32(-np.inf)))
    return found.astype(np.float32)


def _blocks(count: int) -> Iterator[Int[np.ndarray, " B"]]:
    """All row numbers, a few at a time; one empty block if there is none."""
    for start in range(0, max(count, 1), _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count))


def _key(users: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """One ascending number for each (user, length)."""
    return users.astype(np.int64) << 32 | lengths.astype(np.int64)
