"""Ranking of many users over large catalogues within stated memory, its growth, and random negatives without the catalogue.

    python benchmarks/ranking_scale.py [--quick] [--users=8192 --items=100000 --width=64 --memory_mib=512]
    python benchmarks/ranking_scale.py --users=1000000 --items=100000 --memory_mib=8192      on a large machine

`rank_users` ranks every user's target over the whole catalogue without 50 seen items; scores are products of random states
and item vectors, made batch by batch. A batch has as many users as `--memory_mib` holds of score rows (`ROW_COPIES` of them:
the scores, what one comparison leaves, and the next batch's scores). Users are halved twice at all items, and items twice at
all users; the slope of log(seconds) over log(size) is 1 where the cost is linear. With several devices (or
XLA_FLAGS=--xla_force_host_platform_device_count=8) users and catalogue are split over `--mesh=USERS,ITEMS`: the memory is that
of all devices together.

Random negatives: 19 of a catalogue of 1,682, 12,000 and 100,000 items without 100 seen ones, by our draw and by the peer's,
`setdiff1d` over the catalogue; they draw the same items. Kendall's tau of 500 lists of 20, ours and scipy's, list by list.
"""

import argparse
from collections.abc import Callable
from typing import Any

import harness
import jax
import numpy as np
from scipy import stats

from delrec_jax.delrec.agreement import kendall_tau
from delrec_jax.evaluation.user_ranks import full_ranker, rank_users
from delrec_jax.random_items import other_items
from delrec_jax.teachers.lists import ListSettings, drawn_negatives
from delrec_jax.training.sharding import MeshConfig, make_layout, place
from delrec_jax.training.steps import EvalStep

NAME = "ranking_scale"
SEEN = 50
ROW_COPIES = 3
CATALOGUES = (1_682, 12_000, 100_000)
HAD, NEGATIVES, EXAMPLES, ROWS = 100, 19, 20, 256


def batch_of(memory_mib: float, items: int) -> int:
    """Users per batch: a power of two, so that halved numbers of users still fill their batches."""
    rows = memory_mib * 2**20 / (4 * items * ROW_COPIES)
    return 1 << max(0, int(np.log2(max(rows, 1))))


class World:
    """Users' states, item vectors, targets and histories, the first rows of which make a smaller world."""

    def __init__(self, users: int, items: int, width: int, mesh: MeshConfig):
        """Draws everything but the scores."""
        rng = np.random.default_rng(0)
        self.states = rng.normal(size=(users, width)).astype(np.float32)
        self.vectors = rng.normal(size=(items, width)).astype(np.float32)
        self.layout = make_layout(mesh, lambda path, shape: ("catalogue", None))

    def ranking(self, users: int, items: int, batch: int) -> Callable[[], Any]:
        """Ranks the first users over the first items."""
        rng = np.random.default_rng(1)
        targets = rng.integers(0, items, users, np.int32)
        histories = rng.integers(0, items, (users, SEEN), np.int32)
        held = {"vectors": self.vectors[:items]}
        missing = self.layout.padded("catalogue", items) - items
        held["vectors"] = np.pad(held["vectors"], ((0, missing), (0, 0)))
        held = place(held, self.layout.of(held))
        scores = EvalStep(
            lambda held, states: states @ held["vectors"][:items].T,
            self.layout,
            ("users", "catalogue"),
        )
        rankers = {"full": full_ranker(targets, histories)}

        def score(rows: np.ndarray) -> jax.Array:
            return scores(held, self.states[rows])

        return lambda: rank_users(score, rankers, num_users=users, batch_size=min(batch, users))


def slope(sizes: list[int], seconds: list[float]) -> float:
    """The exponent of the growth of seconds with size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(settings: argparse.Namespace) -> dict[str, Any]:
    """Seconds at halved users and items, all within the same memory, and the slopes."""
    users, items = settings.users, settings.items
    data, columns = map(int, settings.mesh.split(","))
    world = World(users, items, settings.width, MeshConfig(data=data, fsdp=columns))
    sizes = [(users, items), (users // 2, items), (users // 4, items)]
    sizes += [(users, items // 2), (users, items // 4)]
    batches = {size: batch_of(settings.memory_mib, size[1]) for size in sizes}
    before = harness.resident_gib("VmHWM")
    cases = {f"{u} x {i}": world.ranking(u, i, batches[u, i]) for u, i in sizes}
    seconds = harness.interleave(cases, settings.rounds)
    least = [min(values) for values in seconds.values()]
    return {
        "seconds": seconds,
        "users per batch": {f"{u} x {i}": batch for (u, i), batch in batches.items()},
        "users/s": {
            name: u / low
            for (name, (u, _)), low in zip(zip(seconds, sizes, strict=True), least, strict=True)
        },
        "slope over users": slope([u for u, _ in sizes[:3]], least[:3]),
        "slope over items": slope([sizes[0][1], items // 2, items // 4], [least[0], *least[3:]]),
        "stated MiB of scores": settings.memory_mib,
        "peak GiB before and after": [before, harness.resident_gib("VmHWM")],
    }


def negatives(rounds: int) -> dict[str, Any]:
    """Microseconds of the random negatives of one example (ours and the peer's) and of one row of lists, by catalogue."""
    found = {}
    for items in CATALOGUES:
        rng, known = np.random.default_rng(items), np.arange(items)
        seen = rng.integers(0, items, (ROWS, HAD))
        rows, settings = np.arange(ROWS), ListSettings(top_h=1, num_candidates=NEGATIVES + 1)

        def ours(known: np.ndarray = known, seen: np.ndarray = seen) -> list[np.ndarray]:
            rng = np.random.default_rng(0)
            return [
                other_items(known, seen[row], NEGATIVES, rng, remedy="") for row in range(EXAMPLES)
            ]

        def peer(known: np.ndarray = known, seen: np.ndarray = seen) -> list[np.ndarray]:
            rng = np.random.default_rng(0)
            return [
                rng.choice(np.setdiff1d(known, seen[row]), NEGATIVES, replace=False)
                for row in range(EXAMPLES)
            ]

        def lists(
            asked: tuple[Any, ...] = (known, seen, settings, rows),
        ) -> np.ndarray:
            return drawn_negatives(*asked)

        np.testing.assert_array_equal(ours(), peer())
        seconds = harness.interleave({"ours": ours, "peer": peer, "lists": lists}, rounds, 1)
        counts = {"ours": EXAMPLES, "peer": EXAMPLES, "lists": ROWS}
        found[str(items)] = {
            "microseconds": {
                name: 1e6 * min(values) / counts[name] for name, values in seconds.items()
            },
            "seconds": seconds,
        }
    return found


def taus(rounds: int) -> dict[str, list[float]]:
    """Seconds of Kendall's tau of 500 lists."""
    a, b = np.random.default_rng(0).normal(size=(2, 500, 20))
    cases = {
        "ours": lambda: kendall_tau(a, b),
        "peer": lambda: [stats.kendalltau(*pair).statistic for pair in zip(a, b, strict=True)],
    }
    np.testing.assert_allclose(cases["ours"](), cases["peer"](), rtol=1e-12)
    return harness.interleave(cases, rounds)


def lines(results: dict[str, Any]) -> list[str]:
    """The lines that are printed."""
    scale = results["ranking"]
    said = [f"{NAME} {case}: {rate:.4g} users/s" for case, rate in scale["users/s"].items()]
    said += [
        f"{NAME} {name}: {scale[name]:.3f}" for name in ("slope over users", "slope over items")
    ]
    for items, found in results["negatives"].items():
        spent = found["microseconds"]
        said.append(
            harness.ratio_line(
                NAME,
                f"negatives of {items} items",
                ours=spent["ours"],
                peer=spent["peer"],
                unit="us",
            )
        )
        said.append(f"{NAME} negatives of a row of lists, {items} items: {spent['lists']:.3g} us")
    low = {name: min(values) for name, values in results["kendall"].items()}
    return [
        *said,
        harness.ratio_line(NAME, "Kendall's tau of 500 lists", **low, unit="s"),
    ]


def main() -> None:
    """Runs, stores and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quick look, some seconds")
    parser.add_argument("--users", type=int, default=8_192)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64, help="numbers of a state")
    parser.add_argument("--memory_mib", type=float, default=512, help="for the scores of a batch")
    parser.add_argument("--mesh", default="-1,1", help="devices along users and items")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    if settings.quick:
        settings.users, settings.items, settings.memory_mib = 512, 4_000, 16
    results = {
        "ranking": growth(settings),
        "negatives": negatives(settings.rounds),
        "kendall": taus(settings.rounds),
    }
    path = harness.save(f"{NAME}.quick" if settings.quick else NAME, vars(settings), results)
    print(f"written: {path.name}", *lines(results), sep="\n")


if __name__ == "__main__":
    main()
