"""The storefront's users: a process whose exact next-item distribution is known.

Each user has a hidden profile, drawn once, that decides how often three behaviours are followed: `continuation` (a saga runs
through companion series: its next volume is in the genre's next series) and `drift` (the matching series of the next genre,
one volume on) are steps from the latest item, `popularity` ignores the history. The next volume of the same series is
deliberately not among them: a language model predicts it unprompted, and a shop that agrees with it could not show what a
prompt carries. The next item is drawn from the mixture over the open items: never one seen before, and no new release
("cold" item) before a user's last interaction. The first item is drawn by popularity.

Given this process but not the profile, no prediction is better than the posterior predictive distribution, which
`next_item_distributions` computes exactly (`storefront_process`): the oracle of the tables. Nothing here returns a user's
profile.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int, Int32

from delrec_jax import prng
from delrec_jax.data.corpora import storefront_process
from delrec_jax.data.corpora.storefront_catalogue import (
    BEHAVIOUR_WORDS,
    behaviour_maps,
    build_catalogue,
)
from delrec_jax.data.interactions import Catalogue, Interactions, from_rows
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM

__all__ = [
    "BEHAVIOUR_WORDS",
    "StorefrontConfig",
    "World",
    "behaviours",
    "make_world",
    "next_item_distributions",
    "sample_interactions",
]

_WEIGHED = ("continuation", "drift", "popularity")  # by a profile
_RELEASE = 1_700_000_000  # Unix seconds; new releases are on sale from here on
_DAY = 86_400
_CHUNK = 2048  # users per block, which bounds the memory of [users, items] arrays


@dataclasses.dataclass(frozen=True)
class StorefrontConfig:
    """The size of the storefront and its process.

    Attributes:
      genres: Number of genres.
      series: Series in each genre.
      volumes: Volumes of each series.
      users: Number of users.
      catalogue_seed: The seed of the titles; worlds of different `seed` share the catalogue.
      min_length: Interactions of the shortest history.
      max_length: Interactions of the longest.
      mean_extra: Mean of the Poisson number of interactions above `min_length`.
      cold_share: Share of the items that are new releases.
      collector_share: Share of users with the first profile; the others have the second.
      collector: Weights of (continuation, drift, popularity) of the first profile.
      wanderer: The same for the second profile.
      zipf: Exponent of the popularity; the item at rank r has weight r ** -zipf.
      uniform: Share of the uniform distribution within `popularity`.
    """

    genres: int = 6
    series: int = 5
    volumes: int = 8
    users: int = 600
    catalogue_seed: int = 0
    min_length: int = 5
    max_length: int = 14
    mean_extra: float = 4.0
    cold_share: float = 0.3
    collector_share: float = 0.7
    collector: tuple[float, ...] = (0.6, 0.14, 0.26)
    wanderer: tuple[float, ...] = (0.44, 0.28, 0.28)
    zipf: float = 1.0
    uniform: float = 0.2

    def __post_init__(self) -> None:
        if self.max_length < self.min_length:
            raise UserError(
                f"data.storefront.max_length is {self.max_length}, below data.storefront.min_length = {self.min_length}: raise "
                "the one or lower the other"
            )
        for name in ("collector", "wanderer"):
            weights = getattr(self, name)
            if len(weights) != len(_WEIGHED) or sum(weights) <= 0:
                raise UserError(
                    f"data.storefront.{name} is {weights}: give the weights of {', '.join(_WEIGHED)}, not all of them 0"
                )

    @property
    def num_items(self) -> int:
        """The size of the catalogue."""
        return self.genres * self.series * self.volumes

    @property
    def num_cold(self) -> int:
        """The number of new releases."""
        return round(self.cold_share * self.num_items)


@dataclasses.dataclass(frozen=True)
class World:
    """A storefront: its catalogue and its process, without any user's row.

    Attributes:
      config: What it was made from.
      seed: The seed of rows, cold items and popularity.
      catalogue: The items.
      process: The process that draws the next item.
    """

    config: StorefrontConfig
    seed: int
    catalogue: Catalogue
    process: storefront_process.Process


def make_world(config: StorefrontConfig, seed: int) -> World:
    """The world of a configuration; no user is drawn.

    Args:
      config: The size of the world and its process.
      seed: The seed of the cold items, the popularity and (later) the rows.

    Raises:
      UserError: if a value is out of its range.
    """
    _check(config)
    shape = {"genres": config.genres, "series": config.series, "volumes": config.volumes}
    maps = behaviour_maps(**shape)
    cold = np.zeros(config.num_items, bool)
    cold[prng.generator(seed, "storefront/cold").permutation(len(cold))[: config.num_cold]] = True
    ranks = prng.generator(seed, "storefront/popularity").permutation(len(cold)) + 1.0
    zipf = ranks**-config.zipf
    process = storefront_process.Process(
        popularity=(1 - config.uniform) * zipf / zipf.sum() + config.uniform / len(cold),
        continuation=maps["companion_next"],
        drift=maps["next_genre_next_volume"],
        cold=cold,
        shares=np.array([config.collector_share, 1 - config.collector_share]),
        weights=np.array([config.collector, config.wanderer], float),
    )
    return World(config, seed, build_catalogue(**shape, seed=config.catalogue_seed), process)


def behaviours(world: World) -> dict[str, Int32[np.ndarray, "I"]]:
    """The item that each named behaviour leads to from every item; see `behaviour_maps`."""
    config = world.config
    return behaviour_maps(genres=config.genres, series=config.series, volumes=config.volumes)


def next_item_distributions(
    world: World, histories: Sequence[Int[np.ndarray, "L"]], *, released: bool
) -> Float64[np.ndarray, "U I"]:
    """P(next item | history) under the process, marginalized over the hidden profile.

    Args:
      world: The process.
      histories: One array of items per user, oldest first; an entry of -1 is padding, so a padded [U, L] array is accepted
        as well. It must be the complete history: the profile is inferred from all of it.
      released: Whether the next interaction is the user's last, when new releases are on sale: True for the test target,
        False for all before it.

    Returns:
      float64 [U, I]; rows sum to 1, seen items (and unreleased ones) have 0.

    Raises:
      UserError: if a history has a new release (these come last), the same item twice, or a number outside the catalogue.
    """
    result = np.empty((len(histories), world.catalogue.num_items))
    for begin in range(0, len(histories), _CHUNK):
        rows = _aligned(world, histories[begin : begin + _CHUNK])
        shoppers = storefront_process.start(
            world.process, np.tile(world.process.shares, (len(rows), 1))
        )
        for column in rows.T:
            shoppers = storefront_process.advance(world.process, shoppers, column)
        result[begin : begin + len(rows)] = storefront_process.distributions(
            world.process, shoppers, np.full(len(rows), released)
        )
    return result


def sample_interactions(world: World) -> Interactions:
    """Draws every user's row; a row does not depend on the number of users.

    Returns:
      Histories of varying length, in time order, without repeats. Only a user's last item can be a new release.
    """
    rows: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for begin in range(0, world.config.users, _CHUNK):
        users = range(begin, min(begin + _CHUNK, world.config.users))
        random = [prng.generator(world.seed, "storefront/user", user) for user in users]
        lengths = np.array([_draw_length(world.config, generator) for generator in random])
        rows.extend(storefront_process.sample_rows(world.process, random, lengths))
        times.extend(_draw_times(g, n) for g, n in zip(random, lengths, strict=True))
    return from_rows([f"user{user:06d}" for user in range(world.config.users)], rows, times)


def _draw_length(config: StorefrontConfig, generator: np.random.Generator) -> int:
    return min(config.max_length, config.min_length + int(generator.poisson(config.mean_extra)))


def _draw_times(generator: np.random.Generator, length: int) -> np.ndarray:
    """Times in seconds, days apart, all but the last before the new items are released."""
    gaps = 1 + (generator.exponential(3.0, length) * _DAY).astype(np.int64)
    return np.append(_RELEASE - np.cumsum(gaps[:-1])[::-1], _RELEASE + gaps[-1])


def _aligned(world: World, histories: Sequence[Int[np.ndarray, "L"]]) -> Int32[np.ndarray, "U L"]:
    """Histories without their padding, as rows padded with -1 at the end."""
    rows = [np.asarray(history)[np.asarray(history) >= 0] for history in histories]
    result = np.full((len(rows), max(map(len, rows), default=0)), PAD_ITEM, np.int32)
    for position, row in enumerate(rows):
        outside = row >= world.catalogue.num_items
        if outside.any() or world.process.cold[row[~outside]].any() or len(set(row)) < len(row):
            raise UserError(
                f"storefront: history {row.tolist()} cannot happen in this world: items are "
                f"below {world.catalogue.num_items}, new releases come only last, and nothing "
                "is taken twice; give the items before the one to be predicted, and check "
                "that data.seed and data.storefront are those of the rows"
            )
        result[position, : len(row)] = row
    return result


def _check(config: StorefrontConfig) -> None:
    warm = config.num_items - config.num_cold
    smallest = min(config.genres, config.series, config.volumes, config.users)
    rules = {
        "genres, series, volumes and users at least 1": smallest >= 1,
        "2 <= min_length <= max_length": 2 <= config.min_length <= config.max_length,
        "mean_extra at least 0": config.mean_extra >= 0,
        "cold_share from 0 to below 1": 0 <= config.cold_share < 1,
        f"max_length at most the {warm} items that are not new releases": config.max_length <= warm,
        "collector_share from 0 to 1": 0 <= config.collector_share <= 1,
        "uniform from 0 to 1": 0 <= config.uniform <= 1,
        "zipf at least 0": config.zipf >= 0,
        "collector: three weights >= 0 that sum to 1, the last > 0": _is_mixture(config.collector),
        "wanderer: three weights >= 0 that sum to 1, the last > 0": _is_mixture(config.wanderer),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise UserError(f"data.storefront: must have {broken[0]}; got {config}")


def _is_mixture(weights: Sequence[float]) -> bool:
    return (
        len(weights) == 3
        and min(weights) >= 0
        and weights[2] > 0
        and bool(np.isclose(sum(weights), 1.0))
    )
