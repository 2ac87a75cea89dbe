"""`delrec evaluate` for DELRec: one rank record per user, system and protocol; nothing is sampled here."""

from delrec_jax.delrec import systems
from delrec_jax.distributed import on_main
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace, data: Data, language: Language) -> None:
    """Ranks every user's test item with every system; stores the records and, if known, the oracle's expected values."""
    run = Evaluation(ws.experiment, data)
    run.protocols.add_rerank(recommenders.load_teacher(ws, data).scores)
    for name, system in recommenders.conventional_systems(ws, data, "test").items():
        run.rank_catalogue(name, system.score_users, order=system.order)
    scorer = LanguageScorer(language)
    everything = systems.language_systems(ws, data, language)
    with ProgressBar("evaluate", len(everything)) as bar:
        for done, (name, parts) in enumerate(everything.items()):
            run.rank_language_system(name, scorer, parts)
            bar.update(done + 1, name)
    if data.world is not None:
        run.add_oracle()
    on_main(lambda: run.write(ws.folder("evaluate")))
