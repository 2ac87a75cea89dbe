"""Ranks every system under every protocol into rank records, one per user: what all methods share of `delrec evaluate`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from delrec_jax.config import Experiment
from delrec_jax.data.corpora.storefront_world import next_item_distributions
from delrec_jax.evaluation import metrics, records, top_lists, user_facts
from delrec_jax.evaluation.records import RecordKey
from delrec_jax.evaluation.user_ranks import RankFn
from delrec_jax.training.writers import say
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
from delrec_jax.workdir.protocols import Protocols
from delrec_jax.workdir.ranked_so_far import RankedSoFar
from delrec_jax.workdir.ranking_passes import OrderedScores, Passes, Ranked
from delrec_jax.workdir.systems import System


class _RankedHybrid(NamedTuple):
    chosen: Weighted
    ranked: Ranked


def _identity(key: RecordKey) -> Key:
    """The system as `cost.json` and the lists name it."""
    return Key(key.system, key.teacher, key.seed)


class Evaluation:
    """Collects the records of all systems; protocols and their candidates are the same for each."""

    def __init__(self, experiment: Experiment, data: Data, so_far: RankedSoFar | None = None):
        """Ranks nothing yet.

        Args:
          experiment: the config.
          data: the corpus.
          so_far: keeps what is ranked until the records are written; None keeps nothing.
        """
        self.data, self._experiment = data, experiment
        self._so_far = so_far or RankedSoFar()
        self.protocols = Protocols(experiment, data)
        self._passes = Passes(
            data.split,
            self.protocols,
            num_items=data.num_items,
            batch_size=experiment.evaluate.batch_size,
        )
        self._costs = Costs()
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
        self._rank(
            name,
            lambda: OrderedScores(lambda rows: system.scores("test", rows), system.order("test")),
            self.protocols.rankers(full_scores=True),
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
        weights, systems = self._common.with_systems(systems), {**common, **systems}
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
            key = self._key(name, **names)
            chosen[name] = found = self._so_far.weights(key, partial(weights.choose, parts))
            told = ", ".join(f"{part} {weight:g}" for part, weight in found.weights.items())
            say(f"  {name}: weights {told}; validation NDCG@10 {found.valid_ndcg10:.4f}")
        ranked = self._once | self._rank_together(systems, chosen, names)
        for name in shared:
            self._keep_hybrid(name, ranked[name], names)
        self._once |= {name: ranked[name] for name, once in shared.items() if once}

    def _keep_hybrid(self, name: str, one: "_RankedHybrid", names: Mapping[str, Any]) -> None:
        """Keeps what is known of a hybrid under the names of one call."""
        found = one.chosen
        self.hybrids.append(
            {"system": name, **names, **asdict(found), "best_part": found.best_part}
        )
        self._keep(one.ranked, self.protocols.record_key(name, **names))

    def _rank_together(
        self,
        systems: Mapping[str, System],
        chosen: Mapping[str, Weighted],
        names: Mapping[str, Any],
    ) -> dict[str, _RankedHybrid]:
        """Ranks hybrids with their chosen weights, in one pass."""
        rankers = self.protocols.rankers(full_scores=True)
        weights = {name: one.weights for name, one in chosen.items()}
        together: dict[str, Ranked] = {}

        def rank(name: str) -> Ranked:
            if not together:  # at the first that was not ranked before an interruption
                together.update(self._passes.together(systems, weights, rankers))
            return together[name]

        return {
            name: _RankedHybrid(
                one, self._so_far.ranked(self._key(name, **names), rankers, partial(rank, name))
            )
            for name, one in chosen.items()
        }

    @property
    def hybrid_pairs(self) -> list[tuple[str, str]]:
        """Each hybrid with that of its systems which is best by validation: what the hybrid has to beat."""
        return [(one["system"], one["best_part"]) for one in self.hybrids]

    def rank_language_system(
        self,
        name: str,
        scorer: LanguageScorer,
        system: LanguageSystem,
        *,
        trained: Sequence[Path] = (),
    ) -> System | None:
        """Ranks a language system: one pass per user for all protocols, or one per protocol if candidates must be stated.

        Args:
          name: that of the system.
          scorer: what scores its texts.
          system: the language model's prompt, adapters and readout.
          trained: the folders of the training runs that made these.

        Returns:
          The system, so that hybrids can be made of it; None if it does not score the whole catalogue.
        """
        names: dict[str, Any] = {"step": system.step, "beside": system.beside}
        if scorer.ranks_catalogue:
            found = CatalogueSystem(scorer, system, self.data.split, self.protocols.rows)
            self.rank_system(name, found, trained=trained, **names)
            return found
        # Candidates that are listed in the text, or decoded one by one, cannot be the whole catalogue.
        for protocol, ranker in self.protocols.rankers(full_scores=False).items():
            asked = partial(self._ask_candidates, scorer, system, protocol)
            self._rank(name, asked, {protocol: ranker}, trained=trained, **names)
        return None

    def _ask_candidates(
        self, scorer: LanguageScorer, system: LanguageSystem, protocol: str
    ) -> OrderedScores:
        candidates = self.protocols.candidates[protocol][0]
        assert candidates is not None
        ranked = self.protocols.rows
        texts = RowTexts(
            scorer, system, self.data.split, "test", candidates=candidates, asked=ranked
        )
        return OrderedScores(
            lambda rows: scorer.candidates(system, texts(rows), candidates[rows]), texts.order
        )

    def add_oracle(self) -> None:
        """Adds the exact next-item distribution: realized ranks, and expected metrics."""
        world = self.data.world
        assert world is not None
        exact = next_item_distributions(world, self.data.split.histories("test"), released=True)
        rankers = self.protocols.rankers(full_scores=True)
        self._rank("oracle", lambda: OrderedScores(lambda rows: exact[rows]), rankers)
        rows = self.protocols.rows
        for protocol, (candidates, _) in self.protocols.candidates.items():
            chosen = exact[rows]
            if candidates is not None:
                chosen = np.take_along_axis(chosen, candidates[rows], 1)
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
        ask: Callable[[], OrderedScores],
        rankers: Mapping[str, RankFn],
        *,
        trained: Sequence[Path] = (),
        **names: Any,
    ) -> None:
        found = self._so_far.ranked(
            self._key(system, **names), rankers, lambda: self._passes.alone(system, ask(), rankers)
        )
        self._keep(found, self.protocols.record_key(system, **names), trained=trained)

    def _key(self, system: str, **names: Any) -> Key:
        return _identity(self.protocols.record_key(system, **names))

    def _keep(self, found: Ranked, key: RecordKey, *, trained: Sequence[Path] = ()) -> None:
        self._costs.add(_identity(key), found.times, trained=trained)
        self.tables += self.protocols.records(found.ranks, key)
        if found.best is not None:
            self.lists.append(
                top_lists.lists_table(*_identity(key), users=self.protocols.users, items=found.best)
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
        self._so_far.remove()
