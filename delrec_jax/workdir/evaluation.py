"""Ranks every system under every protocol into rank records, one per user: what all methods share of `delrec evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from delrec_jax.config import Experiment
from delrec_jax.data.corpora.storefront_world import next_item_distributions
from delrec_jax.evaluation import metrics, records, top_lists, user_facts, user_ranks
from delrec_jax.evaluation.records import RecordKey
from delrec_jax.evaluation.user_ranks import RankFn, Ranks, ScoreFn
from delrec_jax.training.writers import say
from delrec_jax.workdir.best_lists import BestLists
from delrec_jax.workdir.cost import Costs, Key
from delrec_jax.workdir.hybrids import HybridWeights, Weighted
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_scorer import (
    CatalogueSystem,
    LanguageScorer,
    LanguageSystem,
    RowTexts,
)
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import Protocols, RowHistories
from delrec_jax.workdir.ranking_times import Ranking
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.together import Together


@dataclass(frozen=True)
class _RankedHybrid:
    """A hybrid's weights, ranks, best items and times."""

    chosen: Weighted
    ranks: Mapping[str, Ranks]
    best: BestLists
    times: Ranking


def _identity(key: RecordKey) -> Key:
    """The system as `cost.json` and the lists name it."""
    return Key(key.system, key.teacher, key.seed)


def _beside(best: BestLists, rankers: Mapping[str, RankFn]) -> dict[str, RankFn]:
    """The same rankers; with that of `full`, the best items of every batch are kept."""
    return {
        name: best.beside(ranker) if name == "full" else ranker for name, ranker in rankers.items()
    }


class Evaluation:
    """Collects the records of all systems; protocols and their candidates are the same for each."""

    def __init__(self, experiment: Experiment, data: Data):
        self.data, self._experiment = data, experiment
        self.protocols = Protocols(experiment, data)
        self._batch_size = experiment.evaluate.batch_size
        self._seen, self._costs = RowHistories(data.split, "test"), Costs()
        self.tables: list[pl.DataFrame] = []
        self.lists: list[pl.DataFrame] = []
        self.expected: list[pl.DataFrame] = []
        self.hybrids: list[dict[str, Any]] = []
        self._common: HybridWeights | None = None
        self._once: dict[str, _RankedHybrid] = {}  # hybrids of systems that all calls share

    def rank_system(
        self, name: str, system: System, *, trained: Sequence[Path] = (), **names: Any
    ) -> None:
        """Ranks a system under all protocols.

        Args:
          name: that of the system.
          system: what scores the catalogue.
          trained: the folders of the training runs that made it.
          names: other fields of its `RecordKey`.
        """
        rankers = self.protocols.rankers(full_scores=True)
        order = system.order("test")
        self._rank(
            name,
            lambda rows: system.scores("test", rows),
            rankers,
            order=order,
            trained=trained,
            **names,
        )

    def rank_hybrids(
        self,
        systems: Mapping[str, System],
        *,
        common: Mapping[str, System] | None = None,
        tell: bool = True,
        **names: Any,
    ) -> None:
        """Ranks the hybrids of the config whose systems are all there, with weights chosen by validation.

        Args:
          systems: what hybrids can consist of, by name, beside those of `common`.
          common: systems that all calls share: hybrids of these alone are chosen and ranked once, and each call writes their
            records under its own names.
          tell: whether to say which hybrids are left out.
          names: other fields of their `RecordKey`.
        """
        config, split, common = self._experiment.baselines, self.data.split, common or {}
        self._common = self._common or HybridWeights(split, config, common)
        weights, systems = self._common.beside(systems), {**common, **systems}
        chosen: dict[str, Weighted] = {}
        shared: dict[str, bool] = {}
        for name, parts in config.hybrid_parts.items():
            if missing := [part for part in parts if part not in systems]:
                if tell:
                    say(f"  {name} is left out: {', '.join(missing)} cannot be part of it here")
                continue
            shared[name] = all(systems[part] is common.get(part) for part in parts)
            if shared[name] and name in self._once:
                continue
            chosen[name] = found = weights.choose(parts)
            told = ", ".join(f"{part} {weight:g}" for part, weight in found.weights.items())
            say(f"  {name}: weights {told}; validation NDCG@10 {found.valid_ndcg10:.4f}")
        ranked = self._once | self._rank_together(systems, chosen)
        for name in shared:
            self._keep_hybrid(name, ranked[name], names)
        self._once |= {name: ranked[name] for name, once in shared.items() if once}

    def _keep_hybrid(self, name: str, one: "_RankedHybrid", names: Mapping[str, Any]) -> None:
        """Keeps what is known of a hybrid under the names of one call."""
        found, key = one.chosen, self.protocols.record_key(name, **names)
        self.hybrids.append(
            {"system": name, **names, **asdict(found), "best_part": found.best_part}
        )
        self._costs.took(_identity(key), one.times)
        self._keep(one.ranks, one.best, key)

    def _rank_together(
        self, systems: Mapping[str, System], chosen: Mapping[str, Weighted]
    ) -> dict[str, "_RankedHybrid"]:
        """Ranks hybrids with their chosen weights in one pass."""
        if not chosen:
            return {}
        weights = {name: one.weights for name, one in chosen.items()}
        pass_over = Together(self.data.split, systems, weights)
        best, times = {name: self._best() for name in chosen}, {name: Ranking() for name in chosen}
        rankers = self.protocols.rankers(full_scores=True)
        order = self._ranked(pass_over.order())
        found = pass_over.rank(
            {name: _beside(one, rankers) for name, one in best.items()},
            times,
            order=order,
            batch_size=min(self._batch_size, len(order)),
        )
        return {
            name: _RankedHybrid(one, found[name], best[name], times[name])
            for name, one in chosen.items()
        }

    @property
    def hybrid_pairs(self) -> list[tuple[str, str]]:
        """Each hybrid with that of its systems which is best by validation: what the hybrid has to beat."""
        return [(one["system"], one["best_part"]) for one in self.hybrids]

    def rank_language_system(
        self,
        system: str,
        scorer: LanguageScorer,
        parts: LanguageSystem,
        *,
        trained: Sequence[Path] = (),
    ) -> System | None:
        """Ranks a language system: one pass per user for all protocols, or one per protocol if candidates must be stated.

        Args:
          system: its name.
          scorer: what scores its texts.
          parts: the language model's prompt, adapters and readout.
          trained: the folders of the training runs that made these.

        Returns:
          The system, so that hybrids can be made of it; None if it does not score the whole catalogue.
        """
        names: dict[str, Any] = {"step": parts.step, "beside": parts.beside}
        if scorer.ranks_catalogue:
            found = CatalogueSystem(scorer, parts, self.data.split)
            self.rank_system(system, found, trained=trained, **names)
            return found
        # Candidates that are listed in the text, or decoded one by one, cannot be the whole catalogue.
        for protocol, ranker in self.protocols.rankers(full_scores=False).items():
            candidates = self.protocols.candidates[protocol][0]
            assert candidates is not None
            texts = RowTexts(scorer, parts, self.data.split, "test", candidates)

            def score(
                rows: np.ndarray, texts: RowTexts = texts, candidates: np.ndarray = candidates
            ) -> jax.Array:
                """Scores of each user's candidates; the defaults bind the arrays of this protocol."""
                return scorer.candidates(parts, texts(rows), candidates[rows])

            self._rank(
                system, score, {protocol: ranker}, order=texts.order, trained=trained, **names
            )
        return None

    def add_oracle(self) -> None:
        """Adds the exact next-item distribution: realized ranks, and expected metrics."""
        world = self.data.world
        assert world is not None
        exact = next_item_distributions(world, self.data.split.histories("test"), released=True)
        rankers = self.protocols.rankers(full_scores=True)
        self._rank("oracle", lambda rows: exact[rows], rankers)
        rows = self.protocols.rows
        for protocol, (candidates, _) in self.protocols.candidates.items():
            chosen = exact if candidates is None else np.take_along_axis(exact, candidates, 1)
            chosen = chosen[rows]
            if protocol.startswith("sampled"):
                # Negatives are drawn uniformly, so each candidate is the target in proportion to its probability.
                chosen = chosen / chosen.sum(1, keepdims=True)
            values = metrics.expected_metrics(chosen)
            table = records.expected_table(
                protocol, users=self.protocols.users, values=values, cold=self.protocols.cold[rows]
            )
            self.expected.append(table)

    def _rank(
        self,
        system: str,
        score_users: ScoreFn,
        rankers: Mapping[str, RankFn],
        *,
        order: np.ndarray | None = None,
        trained: Sequence[Path] = (),
        **names: Any,
    ) -> None:
        key, best = self.protocols.record_key(system, **names), self._best()
        order = self._ranked(order)
        with self._costs.of_pass(_identity(key), trained) as clock:
            found = user_ranks.rank_users(
                clock.scoring(score_users),
                {name: clock.ranking(ranker) for name, ranker in _beside(best, rankers).items()},
                num_users=len(self.protocols.targets),
                batch_size=min(self._batch_size, len(order)),
                what=system,
                order=order,
            )
        self._keep(found, best, key)

    def _ranked(self, order: np.ndarray | None) -> np.ndarray:
        """The rows that are ranked, in this order of all rows, or else ascending."""
        rows = self.protocols.rows
        return rows if order is None else order[np.isin(order, rows)]

    def _best(self) -> BestLists:
        return BestLists(self._seen, self.data.num_items)

    def _keep(self, found: Mapping[str, Ranks], best: BestLists, key: RecordKey) -> None:
        self.tables += self.protocols.records(found, key)
        if "full" in found:
            items = best.collect()[self.protocols.rows]
            self.lists.append(
                top_lists.lists_table(*_identity(key), users=self.protocols.users, items=items)
            )

    def write(self, folder: Path, *, root: Path) -> None:
        """Writes the records, and what lies beside them, into a folder of the workdir `root`."""
        rows = self.protocols.rows
        records.write_records(folder / "records.parquet", pl.concat(self.tables))
        write_json(folder / "hybrids.json", self.hybrids)
        top_lists.write_lists(
            folder, pl.concat(self.lists), interactions=self.protocols.interactions
        )
        user_facts.write_user_facts(
            folder,
            users=self.protocols.users,
            history=self.data.split.history_lengths("test")[rows],
            target_count=self.protocols.interactions[self.protocols.targets[rows]],
        )
        self._costs.write(folder, root=root)
        if self.expected:
            records.write_expected(folder / "expected.parquet", pl.concat(self.expected))
