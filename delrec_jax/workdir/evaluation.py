"""Ranks every system under every protocol into rank records, one per user: what all methods share of `delrec evaluate`."""

from collections.abc import Iterable, Mapping, Sequence
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
from delrec_jax.workdir.hybrids import HybridWeights
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_scorer import (
    CatalogueSystem,
    LanguageScorer,
    LanguageSystem,
    RowTexts,
)
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import Protocols, RowHistories
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.together import Together


@dataclass(frozen=True)
class _Collector:
    """What is kept of one system beside its ranks, and under which names."""

    key: RecordKey
    best: BestLists

    @property
    def identity(self) -> Key:
        """The system as `cost.json` and the lists name it."""
        return Key(self.key.system, self.key.teacher, self.key.seed)

    def beside(self, rankers: Mapping[str, RankFn]) -> dict[str, RankFn]:
        """The same rankers; with that of `full`, the best items of every batch are kept."""
        return {
            name: self.best.beside(ranker) if name == "full" else ranker
            for name, ranker in rankers.items()
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
        self, systems: Mapping[str, System], *, tell: bool = True, **names: Any
    ) -> None:
        """Ranks the hybrids of the config whose systems are all there, with weights chosen by validation.

        Args:
          systems: what hybrids can consist of, by name.
          tell: whether to say which hybrids are left out.
          names: other fields of their `RecordKey`.
        """
        config, split = self._experiment.baselines, self.data.split
        weights = HybridWeights(split, config, systems)
        chosen = {}
        for name, parts in config.hybrid_parts.items():
            if missing := [part for part in parts if part not in systems]:
                if tell:
                    say(f"  {name} is left out: {', '.join(missing)} cannot be part of it here")
                continue
            found = weights.choose(parts)
            chosen[name] = found.weights
            told = ", ".join(f"{part} {weight:g}" for part, weight in found.weights.items())
            say(f"  {name}: weights {told}; validation NDCG@10 {found.valid_ndcg10:.4f}")
            self.hybrids.append(
                {"system": name, **names, **asdict(found), "best_part": found.best_part}
            )
        if chosen:
            self._rank_together(Together(split, systems, chosen), chosen, **names)

    def _rank_together(self, pass_over: Together, hybrids: Iterable[str], **names: Any) -> None:
        collectors = {name: self._collector(name, **names) for name in hybrids}
        rankers = self.protocols.rankers(full_scores=True)
        order = self._ranked(pass_over.order())
        found = pass_over.rank(
            {name: one.beside(rankers) for name, one in collectors.items()},
            {name: self._costs.of(one.identity) for name, one in collectors.items()},
            order=order,
            batch_size=min(self._batch_size, len(order)),
        )
        for name, collector in collectors.items():
            self._keep(found[name], collector)

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
        collector, order = self._collector(system, **names), self._ranked(order)
        with self._costs.of_pass(collector.identity, trained) as clock:
            found = user_ranks.rank_users(
                clock.scoring(score_users),
                {name: clock.ranking(ranker) for name, ranker in collector.beside(rankers).items()},
                num_users=len(self.protocols.targets),
                batch_size=min(self._batch_size, len(order)),
                what=system,
                order=order,
            )
        self._keep(found, collector)

    def _ranked(self, order: np.ndarray | None) -> np.ndarray:
        """The rows that are ranked, in this order of all rows, or else ascending."""
        rows = self.protocols.rows
        return rows if order is None else order[np.isin(order, rows)]

    def _collector(self, system: str, **names: Any) -> "_Collector":
        key = self.protocols.record_key(system, **names)
        return _Collector(key, BestLists(self._seen, self.data.num_items))

    def _keep(self, found: Mapping[str, Ranks], collector: "_Collector") -> None:
        self.tables += self.protocols.records(found, collector.key)
        if "full" in found:
            items = collector.best.collect()[self.protocols.rows]
            self.lists.append(
                top_lists.lists_table(*collector.identity, users=self.protocols.users, items=items)
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
