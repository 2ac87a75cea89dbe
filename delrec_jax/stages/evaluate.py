"""`delrec evaluate`: every system under every protocol to one rank record a user (never a sample drawn here)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.data.candidates import rerank_candidates
from delrec_jax.data.corpora.storefront_world import next_item_distributions
from delrec_jax.data.splits import padded_histories
from delrec_jax.evaluation import metrics, ranking, records
from delrec_jax.evaluation.records import RecordKey
from delrec_jax.stages import assets, systems
from delrec_jax.stages.systems import LanguageScorer, LanguageSystem
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.lists import inputs_hash
from delrec_jax.training.writers import ProgressBar

_SPLIT = "leave_one_out"


def evaluate(ws: Workspace) -> None:
    """Ranks the test item of every user by every system and stores records (and the oracle's expectation)."""
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    run = _Evaluation(ws, data)
    for name, scores in systems.conventional_systems(ws, data, "test").items():
        run.add_catalogue_scores(name, "all", scores)
        if name == "teacher":
            run.add_rerank_candidates(scores)
    scorer = LanguageScorer(ws, language)
    everything = systems.language_systems(ws, data, language)
    with ProgressBar("evaluate", len(everything)) as bar:
        for done, ((name, labels), system) in enumerate(everything.items()):
            run.add_language_system(name, labels, scorer, system)
            bar.update(done + 1, name)
    if data.world is not None:
        run.add_oracle()
    run.rank_pending()
    run.write()


class _Evaluation:
    """Collects records over systems; protocols and their candidates are the same for all."""

    def __init__(self, ws: Workspace, data: assets.Data):
        self.ws, self.data = ws, data
        split = data.split
        self.targets = split.test_target
        longest = int(split.train.lengths.max()) + 1
        self.histories = padded_histories(split, "test", longest)
        self.cold = split.cold_items(data.num_items)[self.targets]
        sampled = data.candidates["test"]
        self.protocols: dict[str, tuple[np.ndarray | None, str]] = {
            "full": (None, ""),
            f"sampled-{sampled.items.shape[1]}": (sampled.items, sampled.hash),
        }
        self.tables: list[pl.DataFrame] = []
        self.expected: list[pl.DataFrame] = []
        self._pending: list[tuple[str, str, Callable]] = []

    def add_rerank_candidates(self, teacher: Callable) -> None:
        """Fixes `rerank-m`: the teacher's best unseen items of each user."""
        rows = np.arange(len(self.targets))
        scores = np.concatenate(
            [np.asarray(teacher(part)) for part in np.array_split(rows, max(1, len(rows) // 256))]
        )
        count = self.ws.experiment.candidates.rerank
        items = rerank_candidates(scores, self.histories, count)
        self.protocols[f"rerank-{count}"] = (items, inputs_hash(items))

    def add_catalogue_scores(self, system: str, labels: str, score_users: Callable) -> None:
        """A system that scores the whole catalogue; ranked once all protocols are fixed."""
        self._pending.append((system, labels, score_users))

    def add_language_system(
        self, system: str, labels: str, scorer: LanguageScorer, parts: LanguageSystem
    ) -> None:
        """A language system: one pass a user for all protocols, or one a protocol where candidates must be stated."""
        users = self.data.split.users
        histories = [self.data.split.history("test", int(user)) for user in users]
        if scorer.ranks_catalogue:
            ids = scorer.texts(parts, histories)
            self.add_catalogue_scores(
                system, labels, lambda rows: scorer.catalogue(parts, ids[rows])
            )
            return
        for protocol, (candidates, _) in self.protocols.items():
            if candidates is None:
                continue  # what is listed in the text, or decoded one by one, cannot be the whole catalogue
            ids = scorer.texts(parts, histories, candidates)

            def score(rows, ids=ids, candidates=candidates):
                return scorer.candidates(parts, ids[rows], candidates[rows])

            self._rank(system, labels, score, {protocol}, full_scores=False)

    def add_oracle(self) -> None:
        """The exact next-item distribution: realised ranks, and expected metrics."""
        world = self.data.world
        assert world is not None
        exact = next_item_distributions(world, list(self.histories), released=True)
        self.add_catalogue_scores("oracle", "all", lambda rows: exact[rows])
        for protocol, (candidates, _) in self.protocols.items():
            chosen = exact if candidates is None else np.take_along_axis(exact, candidates, 1)
            if protocol.startswith("sampled"):
                # The negatives are drawn evenly, so the target is any candidate in proportion to its probability.
                chosen = chosen / chosen.sum(1, keepdims=True)
            values = metrics.expected_metrics(chosen)
            self.expected.append(
                records.expected_table(
                    protocol, users=self.data.split.users, values=values, cold=self.cold
                )
            )

    def rank_pending(self) -> None:
        """Ranks all systems that score the whole catalogue under all protocols."""
        for system, labels, score_users in self._pending:
            self._rank(system, labels, score_users, set(self.protocols), full_scores=True)

    def _rank(
        self, system: str, labels: str, score_users: Any, names: set[str], *, full_scores: bool
    ):
        rankers = {}
        for protocol in sorted(names):
            candidates, _ = self.protocols[protocol]
            rankers[protocol] = (
                ranking.full_ranker(self.targets, self.histories)
                if candidates is None
                else ranking.candidate_ranker(self.targets, candidates, full_scores=full_scores)
            )
        found = ranking.rank_users(
            score_users,
            rankers,
            num_users=len(self.targets),
            batch_size=min(self.ws.experiment.evaluate.batch_size, len(self.targets)),
            what=system,
        )
        for protocol, ranks in found.items():
            self.tables.append(self._table(system, labels, protocol, ranks))

    def _table(self, system: str, labels: str, protocol: str, ranks: ranking.Ranks) -> pl.DataFrame:
        candidates, digest = self.protocols[protocol]
        unseen = self.data.num_items - (self.histories >= 0).sum(1)
        key = RecordKey(
            corpus=self.data.corpus.name,
            split=_SPLIT,
            protocol=protocol,
            system=system,
            teacher=self.ws.experiment.teacher.name,
            seed=self.ws.experiment.seed,
            labels=labels,
            candidate_hash=digest,
        )
        return records.record_table(
            key,
            users=self.data.split.users,
            targets=self.targets,
            ranks=ranks.rank,
            ties=ranks.ties,
            candidates=unseen if candidates is None else candidates.shape[1],
            cold=self.cold,
        )

    def write(self) -> None:
        """Stores the records."""
        folder = self.ws.folder("evaluate")
        records.write_records(folder / "records.parquet", pl.concat(self.tables))
        if self.expected:
            records.write_expected(folder / "expected.parquet", pl.concat(self.expected))
