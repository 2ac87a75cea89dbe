"""`delrec evaluate`: every system under every protocol to one rank record a user (never a sample drawn here)."""

from delrec_jax.delrec import systems
from delrec_jax.distributed import on_main
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import assets, recommenders
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace) -> None:
    """Ranks the test item of every user by every system and stores records (and the oracle's expectation)."""
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    run = Evaluation(ws, data)
    run.protocols.add_rerank(load_teacher(ws, data).scores)
    conventional = recommenders.conventional_systems(ws, data, "test")
    for name, system in (conventional | recommenders.augmented_system(ws, data, "test")).items():
        run.rank_catalogue(name, system.score_users, order=system.order)
    scorer = LanguageScorer(ws, language)
    everything = systems.language_systems(ws, data, language)
    with ProgressBar("evaluate", len(everything)) as bar:
        for done, ((name, labels), parts) in enumerate(everything.items()):
            run.rank_language_system(name, labels, scorer, parts)
            bar.update(done + 1, name)
    if data.world is not None:
        run.add_oracle()
    on_main(run.write)
