"""Users ranked per second: each verbalizer over candidates and whole catalogues, compared with plain PyTorch.

    .venv-parity/bin/python benchmarks/ranking.py [--quick]

Flan-T5 small's shape, random weights (the same on both sides), synthetic titles of 3 to 12 tokens of which one in a hundred
repeats another, float32, one batch of users. Both sides run the encoder, which takes most of the time; so everything is
timed again from the encoder's output (`scoring alone`; our model then has an encoder without layers). Without torch our side
runs alone. ranking_peer.py says what the peers do.
"""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.language.ranker import Ranker
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.verbalizer import title_matrix
from delrec_jax.language.verbalizers import VERBALIZERS

try:
    import ranking_peer
    import torch
except ImportError:
    ranking_peer = torch = None

NAME = "ranking"
SENTINEL, FIRST_CODE = 32_099, 100
SMALL, LARGE = 1_682, 100_000
TOLERANCE = 1e-3
REFERENCE_LENGTH = 1_065  # the authors' code pads every text to this
GATHER, PADDED = " (gather)", " (padded)"
Cases = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
      users: texts per batch.
      slow_users: texts of the batch in which the peer loops over the large catalogue.
      lengths: maximum tokens of a text; each text has at least 3/4 of them.
      padded: whether the peer is also timed on texts padded to the reference's length.
    """

    users: int = 16
    slow_users: int = 2
    candidates: int = 20
    lengths: tuple[int, ...] = (256, 64)
    rounds: int = 5
    warmup: int = 1
    padded: bool = True


SHORT = Settings(users=8, slow_users=1, lengths=(256,), rounds=3, padded=False)
QUICK = Settings(users=4, slow_users=1, lengths=(64,), rounds=2, padded=False)


class Catalogue:
    """The titles of one catalogue, and rankers over it."""

    def __init__(self, items: int, rng: np.random.Generator):
        """Draws the titles."""
        lengths = rng.integers(3, 13, items)
        self.titles = [rng.integers(3, 32_000, length).tolist() for length in lengths]
        for item in range(0, items, 100):
            self.titles[item] = self.titles[item // 2]
        self.matrix = title_matrix(self.titles)

    def ranker(self, kind: str, config: T5Config, codes: int = 0) -> Ranker:
        """Ranks the catalogue with one verbalizer."""
        places = tuple(range(FIRST_CODE, FIRST_CODE + codes))
        return Ranker(T5Model(config), *self.matrix, SENTINEL, VERBALIZERS[kind], places)


class Batch:
    """Texts and candidates of one batch of users, and the cases of both sides that rank it."""

    def __init__(
        self, settings: Settings, length: int, *, catalogues: dict[int, Catalogue], model: Any
    ):
        """Draws texts and candidates; the weights are torch's where torch is installed."""
        rng = np.random.default_rng(length)
        ends = rng.integers(3 * length // 4, length + 1, settings.users)
        ends[0] = length
        words = rng.integers(3, 32_000, (settings.users, length))
        self.ids = np.where(np.arange(length) < ends[:, None], words, 0)
        self.candidates = rng.integers(0, SMALL, (settings.users, settings.candidates))
        self.settings, self.catalogues, self.model = settings, catalogues, model
        self.params = _torch_weights(model) if model else _random_weights()

    def ours(self, config: T5Config) -> Cases:
        """Our cases; item vectors are computed beforehand, as in an evaluation."""
        ids, chosen, cases = jnp.asarray(self.ids), jnp.asarray(self.candidates), Cases()
        for size, catalogue in self.catalogues.items():
            ranker = catalogue.ranker("mean", config)
            vectors = jax.jit(ranker.item_vectors)(self.params)
            score = _vectors_last(ranker.catalogue_scores)
            cases[f"mean-catalogue-{size}"] = _call(score, self.params, ids, vectors)
            if size == SMALL:
                score = _vectors_last(ranker.candidate_scores)
                cases["mean-candidates"] = _call(score, self.params, ids, chosen, vectors)
        for kind in ("sequence", "index"):
            ranker = self.catalogues[SMALL].ranker(kind, config, self.settings.candidates)
            cases[f"{kind}-candidates"] = _call(ranker.candidate_scores, self.params, ids, chosen)
        return cases

    def peers(self, *, alone: bool) -> Cases:
        """Torch's cases: the straightforward ones under our names, the others with `GATHER` or `PADDED` appended."""
        if not self.model:
            return {}
        batch = ranking_peer.TorchRanker(self.model, self.ids, SENTINEL)
        cases = self._small_peers(batch, batch.encode() if alone else None)
        if self.settings.padded and not alone:
            wide, listed = batch.padded(REFERENCE_LENGTH), self.candidates.tolist()
            cases[f"mean-candidates{PADDED}"] = _bound(
                wide.mean_loop, self._words(SMALL)[0], listed
            )
        slow = ranking_peer.TorchRanker(self.model, self.ids[: self.settings.slow_users], SENTINEL)
        for size, looped in ((SMALL, batch), (LARGE, slow)):
            words, tokens, weights = self._words(size)
            for suffix, ranker, score, arguments in (
                ("", looped, looped.mean_loop, (words, [range(size)] * len(looped.ids))),
                (GATHER, batch, batch.mean_gather, (tokens, weights, None)),
            ):
                encoded = ranker.encode() if alone else None
                cases[f"mean-catalogue-{size}{suffix}"] = _bound(score, *arguments, encoded)
        return cases

    def _small_peers(self, batch: Any, encoded: Any) -> Cases:
        """The peer's cases over the candidates."""
        words, tokens, weights = self._words(SMALL)
        chosen, listed = torch.tensor(self.candidates), self.candidates.tolist()
        codes = range(FIRST_CODE, FIRST_CODE + self.settings.candidates)
        return {
            "mean-candidates": _bound(batch.mean_loop, words, listed, encoded),
            f"mean-candidates{GATHER}": _bound(batch.mean_gather, tokens, weights, chosen, encoded),
            "sequence-candidates": _bound(batch.sequence, tokens, weights, chosen, encoded),
            "index-candidates": _bound(batch.index, codes, encoded),
        }

    def _words(self, size: int) -> tuple[list[Any], Any, Any]:
        catalogue = self.catalogues[size]
        tokens, weights = (torch.tensor(part) for part in catalogue.matrix)
        return [torch.tensor(title) for title in catalogue.titles], tokens.long(), weights

    def users_of(self, side: str, case: str) -> int:
        """How many users one run of a case ranks."""
        slow = side == "peer" and case == f"mean-catalogue-{LARGE}"
        return self.settings.slow_users if slow else self.settings.users


def _torch_weights(model: Any) -> Any:
    return ranking_peer.same_weights(model, jax.eval_shape(_random_weights))


def _random_weights() -> Any:
    pair = jnp.ones((1, 2), jnp.int32)
    return jax.jit(T5(T5Config()).init)(jax.random.key(0), pair, pair)["params"]


def _vectors_last(score: Callable) -> Callable:
    return lambda *arguments: score(*arguments[:-1], vectors=arguments[-1])


def _call(function: Callable, *arguments: Any) -> Callable[[], Any]:
    return _bound(jax.jit(function), *arguments)


def _bound(function: Callable, *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def difference(ours: Cases, peers: Cases) -> dict[str, float]:
    """Largest difference between the sides' scores, less each row's mean (our scores leave out a constant).

    Raises:
      AssertionError: the sides do not compute the same, so comparing their times would mean nothing.
    """
    found = {}
    for case in peers:
        mine = np.asarray(ours[case.partition(" (")[0]]())
        theirs = peers[case]().numpy()
        mine = mine[: len(theirs)]
        centred = [part - part.mean(1, keepdims=True) for part in (mine, theirs)]
        found[case] = float(np.abs(centred[0] - centred[1]).max())
        assert found[case] < TOLERANCE, f"{case}: scores differ by {found[case]:.2g}"
    return found


def run(batch: Batch, *, alone: bool) -> dict[str, Any]:
    """Times both sides, interleaved: seconds of all rounds, and users per second at the medians."""
    config = T5Config(num_layers=0) if alone else T5Config()
    sides = {"ours": batch.ours(config), "peer": batch.peers(alone=alone)}
    cases = {
        f"{side} {case}": call for side, named in sides.items() for case, call in named.items()
    }
    agreement = {} if alone else {"score_difference": difference(*sides.values())}
    seconds = harness.interleave(cases, batch.settings.rounds, batch.settings.warmup)
    rates = {}
    for name, median in harness.medians(seconds).items():
        side, _, case = name.partition(" ")
        rates.setdefault(side, {})[case] = batch.users_of(side, case) / median
    return agreement | {"users_per_second": rates, "seconds": seconds}


def vector_seconds(catalogues: dict[int, Catalogue], params: Any) -> dict[str, float]:
    """Seconds to compute the item vectors, which happens once per evaluation."""
    cases = {
        str(size): _call(catalogue.ranker("mean", T5Config()).item_vectors, params)
        for size, catalogue in catalogues.items()
    }
    return harness.medians(harness.interleave(cases, rounds=3))


def lines(results: dict[str, Any], length: int) -> list[str]:
    """The lines that are printed for one text length."""
    said = []
    for part in ("whole pass", "scoring alone"):
        rates = results[part]["users_per_second"]
        place = f"{length} tokens" + (", scoring alone" if part == "scoring alone" else "")
        ours, peers = rates["ours"], rates.get("peer", {})
        for case in ours:
            for suffix in ("", GATHER, PADDED):
                peer = peers.get(case + suffix)
                if peer or (not peers and not suffix):
                    label = f"{case}{suffix} [{place}]"
                    said.append(
                        harness.ratio_line(NAME, label, ours=ours[case], peer=peer, unit="users/s")
                    )
        for size in (SMALL, LARGE):
            cost = ours["mean-candidates"] / ours[f"mean-catalogue-{size}"]
            said.append(f"{NAME} cost of {size} items over the candidates [{place}]: {cost:.3f}")
    return said


def main() -> None:
    """Runs, stores and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quick look, under two minutes")
    parser.add_argument(
        "--short", action="store_true", help="256 tokens, 8 users, 3 rounds: some minutes"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    settings = QUICK if quick else SHORT if arguments.short else Settings()
    rng = np.random.default_rng(0)
    catalogues = {size: Catalogue(size, rng) for size in (SMALL, LARGE)}
    model = ranking_peer and ranking_peer.random_model(T5Config())
    if model is None:
        print("torch is not installed here: no peer (run in .venv-parity)")
    results: dict[str, Any] = {}
    said = []
    for length in settings.lengths:
        batch = Batch(settings, length, catalogues=catalogues, model=model)
        results.setdefault("item_vectors_seconds", vector_seconds(catalogues, batch.params))
        found = {
            "whole pass": run(batch, alone=False),
            "scoring alone": run(batch, alone=True),
        }
        results[f"{length} tokens"] = found
        said += lines(found, length)
    threads = torch.get_num_threads() if model else None
    written = dataclasses.asdict(settings) | {"torch_threads": threads}
    path = harness.save(f"{NAME}.quick" if quick else NAME, written, results)
    print(f"written: {path.name}", *said, sep="\n")


if __name__ == "__main__":
    main()
