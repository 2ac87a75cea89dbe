"""`delrec evaluate` for P2Rec: one rank record per user and protocol for every recommender of the comparison."""

from itertools import groupby

from delrec_jax.distributed import on_main
from delrec_jax.p2rec.cells import UNTUNED, cells
from delrec_jax.training.writers import ProgressBar
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.cost import training_folders
from delrec_jax.workdir.evaluation import Evaluation
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.ranked_so_far import RankedSoFar
from delrec_jax.workdir.recommenders import PLAIN, Cell
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.title_recommenders import title_vector_systems
from delrec_jax.workdir.workspace import Workspace


def evaluate(ws: Workspace, data: Data, language: Language) -> None:
    """Ranks every user's test item by the baselines, by each recommender of `augment`, by hybrids, and by the oracle.

    `rerank-m` is left out: each recommender would rank different candidates, its own best.
    """
    run = Evaluation(ws.experiment, data, RankedSoFar(ws.folder("evaluate"), ws.saved))
    config = ws.experiment.baselines
    baselines: dict[str, System] = {**recommenders.baseline_systems(ws, data)}
    if config.title_vectors:
        baselines |= title_vector_systems(ws, language.title_vectors, data)
    for name, system in baselines.items():
        run.rank_system(name, system)
    compared = sorted(cells(ws.experiment), key=_group)
    with ProgressBar("evaluate", len(compared)) as bar:
        for number, ((name, seed), group) in enumerate(groupby(compared, _group)):
            systems: dict[str, System] = {}
            for cell in group:
                systems[cell.system] = system = recommenders.cell_system(ws, data, cell)
                trained = training_folders(
                    ws, cell, reads_parser=cell.system not in (PLAIN, UNTUNED)
                )
                run.rank_system(cell.system, system, trained=trained, teacher=name, seed=seed)
            run.rank_hybrids(systems, common=baselines, tell=number == 0, teacher=name, seed=seed)
            bar.update((number + 1) * len(systems), f"{name} seed {seed}")
    if data.world is not None:
        run.add_oracle()
    on_main(lambda: run.write(ws.folder("evaluate"), root=ws.root))


def _group(cell: Cell) -> tuple[str, int]:
    """The recommender's name and seed: what the systems of one comparison share."""
    return cell.name, cell.seed
