"""Times of ranking: of systems that are ranked one after another, and of systems that share what they ask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

from delrec_jax.evaluation.user_ranks import RankFn, ScoreFn
from delrec_jax.training.watching import told_of_compilations

Made = TypeVar("Made")


@dataclass
class RankingTimes:
    """Times of ranking one system; a pass scores every user once, for as many protocols as it can serve.

    Attributes:
      users: ranked ones, of all passes.
      passes: how many.
      first_seconds: of the first batch of every pass, and of those in which something was compiled.
      seconds: of all other batches.
      timed_users: of these.
    """

    users: int = 0
    passes: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    timed_users: int = 0

    def __add__(self, other: "RankingTimes") -> "RankingTimes":
        """Both together."""
        return RankingTimes(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def add(self, users: np.ndarray, seconds: float, *, apart: bool) -> None:
        """Adds a batch.

        Args:
          users: the rows of its users; the padding of the last batch repeats one.
          seconds: that it took.
          apart: whether it was the first of its pass, or something was compiled in it.
        """
        count = len(np.unique(users))
        self.users += count
        if apart:
            self.first_seconds += seconds
        else:
            self.seconds += seconds
            self.timed_users += count


class RankingClock:
    """Times the batches of one pass, from one moment when the device is idle to the next.

    The first batch is told apart, as is every batch in which something was compiled: histories of another length are another
    program. In the first, a system also prepares what it needs once, such as the lengths of all texts.
    """

    def __init__(self, found: RankingTimes, clock: Callable[[], float] = time.perf_counter):
        """Adds to `found`."""
        self._found, self._clock = found, clock
        self._made: list[Any] = []
        self._users, self._apart, self._since = np.zeros(0, int), True, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """For the whole pass."""
        with told_of_compilations(self._compiled):
            yield
            self._settle()
        self._found.passes += 1

    def scoring(self, score_users: ScoreFn) -> ScoreFn:
        """The same scores; a batch begins when they are asked for, and ends when the next begins or the pass ends."""

        def score(users: np.ndarray) -> Any:
            """Scores a batch."""
            self._settle()
            self._users = users
            scores = score_users(users)
            self._made.append(scores)
            return scores

        return score

    def ranking(self, ranker: RankFn) -> RankFn:
        """The same ranker, whose work belongs to the batch."""

        def rank(scores: jax.Array, users: np.ndarray) -> tuple[jax.Array, jax.Array]:
            """Ranks a batch."""
            found = ranker(scores, users)
            self._made.append(found)
            return found

        return rank

    def _compiled(self) -> None:
        self._apart = True

    def _settle(self) -> None:
        if self._made:
            jax.block_until_ready(self._made)
            self._found.add(self._users, self._clock() - self._since, apart=self._apart)
            self._made, self._apart = [], False
        self._since = self._clock()


class Timed(NamedTuple, Generic[Made]):
    """Something that was made, the seconds that it took, and whether something was compiled meanwhile."""

    made: Made
    seconds: float
    compiled: bool


class Stopwatch:
    """Times single pieces of work, each until its arrays are there."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        """Times nothing yet."""
        self._clock, self._compiled = clock, False

    @contextmanager
    def running(self) -> Iterator["Stopwatch"]:
        """For as long as it is told of what is compiled."""
        with told_of_compilations(self._tell):
            yield self

    def __call__(self, work: Callable[..., Made], *given: Any) -> Timed[Made]:
        """Does the work with what is given."""
        self._compiled, since = False, self._clock()
        made = jax.block_until_ready(work(*given))
        return Timed(made, self._clock() - since, self._compiled)

    def _tell(self) -> None:
        self._compiled = True
