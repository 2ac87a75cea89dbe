"""`delrec evaluate` for P2Rec: one rank record per user and protocol for every recommender of the comparison."""

from delrec_jax.distributed import on_main
from delrec_jax.p2rec.cells import cells
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import ConventionalSystem
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace, data: Data) -> None:
    """Ranks every user's test item by the baselines, by each recommender of `augment`, and by the oracle if there is one.

    `rerank-m` is left out: each recommender would rank different candidates, its own best.
    """
    run = Evaluation(ws.experiment, data)
    for name, system in recommenders.baseline_systems(ws, data).items():
        run.rank_system(name, system)
    compared = cells(ws.experiment)
    with ProgressBar("evaluate", len(compared)) as bar:
        for done, cell in enumerate(compared):
            teacher = recommenders.load_cell(ws, data, cell)
            length = cell.config(ws.experiment).max_length
            system = ConventionalSystem(teacher, data.split, length)
            run.rank_system(cell.system, system, teacher=cell.name, seed=cell.seed)
            bar.update(done + 1, f"{cell.name} {cell.system} seed {cell.seed}")
    if data.world is not None:
        run.add_oracle()
    on_main(lambda: run.write(ws.folder("evaluate")))
