"""Ranks every system under every protocol into rank records, one per user: what all methods share of `delrec evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from delrec_jax.config import Experiment
from delrec_jax.data.corpora.storefront_world import next_item_distributions
from delrec_jax.evaluation import metrics, ranking, records, top_lists, user_facts
from delrec_jax.evaluation.ranking import RankFn, ScoreFn
from delrec_jax.training.writers import say
from delrec_jax.workdir.best_lists import BestLists
from delrec_jax.workdir.cost import Costs, Key
from delrec_jax.workdir.hybrids import Hybrid, HybridWeights
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_scorer import (
    AskedTexts,
    CatalogueSystem,
    LanguageScorer,
    LanguageSystem,
)
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import Protocols, RowHistories
from delrec_jax.workdir.systems import System


class Evaluation:
    """Collects the records of all systems; protocols and their candidates are the same for each."""

    def __init__(self, experiment: Experiment, data: Data):
        self.data, self._experiment = data, experiment
        self.protocols = Protocols(experiment, data)
        self._batch_size = experiment.evaluate.batch_size
        self.histories = data.split.histories("test")
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
        for name, parts in config.hybrid_parts.items():
            if missing := [part for part in parts if part not in systems]:
                if tell:
                    say(f"  {name} is left out: {', '.join(missing)} cannot be part of it here")
                continue
            found = weights.choose(parts)
            self.rank_system(name, Hybrid(split, systems, found.weights), **names)
            told = ", ".join(f"{part} {weight:g}" for part, weight in found.weights.items())
            say(f"  {name}: weights {told}; validation NDCG@10 {found.valid_ndcg10:.4f}")
            self.hybrids.append(
                {"system": name, **names, **asdict(found), "best_part": found.best_part}
            )

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
            texts = scorer.texts(parts, self.histories, candidates)

            def score(
                rows: np.ndarray, texts: AskedTexts = texts, candidates: np.ndarray = candidates
            ) -> jax.Array:
                """Scores of each user's candidates; the defaults bind the arrays of this protocol."""
                return scorer.candidates(parts, texts.rows(rows), candidates[rows])

            self._rank(system, score, {protocol: ranker}, trained=trained, **names)
        return None

    def add_oracle(self) -> None:
        """Adds the exact next-item distribution: realized ranks, and expected metrics."""
        world = self.data.world
        assert world is not None
        exact = next_item_distributions(world, self.histories, released=True)
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
        rows = self.protocols.rows
        best = BestLists(self._seen, self.data.num_items)
        kept = {"full": best.beside(rankers["full"])} if "full" in rankers else {}
        key = self.protocols.record_key(system, **names)
        identity = Key(key.system, key.teacher, key.seed)
        with self._costs.of_pass(identity, trained) as clock:
            found = ranking.rank_users(
                clock.scoring(score_users),
                {name: clock.ranking(ranker) for name, ranker in {**rankers, **kept}.items()},
                num_users=len(self.protocols.targets),
                batch_size=min(self._batch_size, len(rows)),
                what=system,
                order=rows if order is None else order[np.isin(order, rows)],
            )
        self.tables += self.protocols.records(found, key)
        if kept:
            items = best.collect()[rows]
            self.lists.append(
                top_lists.lists_table(*identity, users=self.protocols.users, items=items)
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
