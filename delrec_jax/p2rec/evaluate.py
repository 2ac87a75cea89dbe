"""`delrec evaluate` for P2Rec: one rank record per user and protocol for every recommender of the comparison."""

from delrec_jax.distributed import on_main
from delrec_jax.p2rec.cells import cells
from delrec_jax.teachers.popularity import popularity_teacher
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace, data: Data) -> None:
    """Ranks every user's test item by popularity, by each recommender of `augment`, and by the oracle if there is one.

    `rerank-m` is left out: each recommender would rank different candidates, its own best.
    """
    run = Evaluation(ws.experiment, data)
    popularity = popularity_teacher(data.split.train.items, data.num_items)
    _rank(run, "popularity", popularity, length=1)
    compared = cells(ws.experiment)
    with ProgressBar("evaluate", len(compared)) as bar:
        for done, cell in enumerate(compared):
            teacher = recommenders.load_cell(ws, data, cell)
            length = cell.config(ws.experiment).max_length
            _rank(run, cell.system, teacher, length=length, teacher=cell.name, seed=cell.seed)
            bar.update(done + 1, f"{cell.name} {cell.system} seed {cell.seed}")
    if data.world is not None:
        run.add_oracle()
    on_main(lambda: run.write(ws.folder("evaluate")))


def _rank(
    run: Evaluation, system: str, recommender: Teacher, *, length: int, **names: str | int
) -> None:
    read = RowHistories(run.data.split, "test", length)
    asked = recommenders.conventional_system(recommender, read)
    run.rank_catalogue(system, asked.score_users, order=asked.order, **names)
