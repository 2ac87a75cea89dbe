"""`delrec evaluate` for DELRec: one rank record per user, system and protocol; nothing is sampled here."""

from delrec_jax.delrec import systems
from delrec_jax.distributed import on_main
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.cost import trained_systems
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.ranked_so_far import RankedSoFar
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.title_recommenders import title_vector_systems
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace, data: Data, language: Language) -> None:
    """Ranks every user's test item with every system; stores the records and, if known, the oracle's expected values."""
    run = Evaluation(ws.experiment, data, RankedSoFar(ws.folder("evaluate"), ws.saved))
    config = ws.experiment.baselines
    run.protocols.add_rerank(recommenders.list_source(ws, data))
    scorer = LanguageScorer(language)
    ranked: dict[str, System] = {**recommenders.conventional_systems(ws, data)}
    if config.title_vectors:
        ranked |= title_vector_systems(ws, language.title_vectors, data)
    for name, system in ranked.items():
        run.rank_system(name, system, trained=trained_systems(ws).get(name, ()))
    everything = systems.language_systems(ws, data, language)
    with ProgressBar("evaluate", len(everything)) as bar:
        for done, (name, parts) in enumerate(everything.items()):
            trained = systems.training_folders(ws, name)
            if found := run.rank_language_system(name, scorer, parts, trained=trained):
                ranked[name] = found
            bar.update(done + 1, name)
    run.rank_hybrids(ranked)
    if data.world is not None:
        run.add_oracle()
    on_main(lambda: run.write(ws.folder("evaluate"), root=ws.root))
