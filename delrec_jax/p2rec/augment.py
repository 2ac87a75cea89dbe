"""`delrec augment`, P2Rec's information augmentation: conventional recommenders with the LM's item embeddings.

Every recommender is trained plain, with the tuned model's embeddings, and with those of the controls: the untuned model's
embeddings, the tuned model's of the titles of other items, and random vectors of the same spectrum. All networks have the same
rows, budget and selection. EASE is solved: how much its embeddings count is chosen by validation, and may be nothing.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from delrec_jax.config import AugmentConfig
from delrec_jax.config.p2rec import ENSEMBLE, SOLVED
from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash
from delrec_jax.p2rec import files
from delrec_jax.p2rec.cells import cells
from delrec_jax.p2rec.item_embeddings import make_embeddings
from delrec_jax.p2rec.text_vectors import principal, unit_variance
from delrec_jax.teachers.item_to_item import check_catalogue
from delrec_jax.teachers.network import baked
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.augmented_ease import solve
from delrec_jax.workdir.closed_forms import training_part
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import full_rankers
from delrec_jax.workdir.recommenders import PLAIN, Cell
from delrec_jax.workdir.teacher_training import TeacherTraining
from delrec_jax.workdir.validation import mean_ndcg10, selecting_rows
from delrec_jax.workdir.workspace import Workspace


def augment(ws: Workspace, data: Data, language: Language) -> None:
    """Makes the embeddings, then trains (EASE: solves) every recommender of the comparison.

    Raises:
      UserError: the catalogue is too large for EASE.
    """
    if SOLVED in ws.experiment.augment.teachers:
        check_catalogue(display_name(SOLVED), data.num_items)
    make_embeddings(ws, data, language)
    trainers = _Trainers(ws, data)
    found = [trainers.train(cell) for cell in cells(ws.experiment)]
    on_main(lambda: write_json(ws.folder("augment") / "augment.json", found))
    _tell(found)


class _Trainers:
    """Trains (or solves) cells; consecutive cells with the same network and the same use of text share a compiled step."""

    def __init__(self, ws: Workspace, data: Data):
        self.ws, self.data = ws, data
        self._train = training_part(data)
        self._kind: tuple[str, str] | None = None
        self._training: TeacherTraining

    def train(self, cell: Cell) -> dict[str, Any]:
        """Trains or resumes a cell, or reads its finished result; returns its validation metric and checkpoint.

        Of an ensemble, `valid_ndcg10` is that of the sum, `alone_ndcg10` that of its part that reads texts, and the step is
        that part's.
        """
        path = recommenders.cell_path(self.ws, cell)
        result = self._made(cell)
        found = {
            "teacher": cell.name,
            "seed": cell.seed,
            "system": cell.system,
            "checkpoint": file_hash(path),
        }
        if cell.name == SOLVED:  # its settings were chosen by a draw of these users
            value = valid_ndcg10(self.ws, self.data, cell)
            return found | {"valid_ndcg10": value, "step": -1, "steps": 0}
        found |= {
            "valid_ndcg10": result["best_value"],
            "step": result["best_step"],
            "steps": result["steps"],
        }
        if recommenders.is_ensemble(self.ws.experiment, cell):
            together = valid_ndcg10(self.ws, self.data, cell)
            found |= {"valid_ndcg10": together, "alone_ndcg10": result["best_value"]}
        return found

    def _made(self, cell: Cell) -> dict[str, Any]:
        """Makes a cell, unless that is done; returns the description that is stored with it."""
        if cell == recommenders.first_cell(self.ws.experiment):
            return load_tree(recommenders.cell_path(self.ws, cell))[1]
        vectors = None
        if cell.system != PLAIN:
            stored = files.embeddings_path(self.ws, cell.system, cell.seed)
            vectors = files.load_embeddings(stored, ids=self.data.corpus.catalogue.ids)
        identity = self.ws.identity("augment")
        identity |= {"recommender": f"{cell.name}, {cell.system}, seed {cell.seed}"}
        if cell.name == SOLVED:
            path = recommenders.cell_path(self.ws, cell)
            return solve(path, self.data, self._train, vectors, identity=identity)
        return self._fit(cell, vectors, identity)

    def _fit(
        self, cell: Cell, vectors: np.ndarray | None, identity: dict[str, Any]
    ) -> dict[str, Any]:
        config = self.ws.experiment.augment
        way = network_way(config, cell.system)
        if vectors is not None:
            vectors = in_form(vectors, config, cell.config(self.ws.experiment).shape.width)
        text = None if way == "own" else vectors
        training = self._of(cell, way, 0 if text is None else text.shape[1])
        begins = None if vectors is None or way != "own" else (vectors, config.start_std)
        params, result = training.fit(
            f"augment/{cell.name}/seed-{cell.seed}/{cell.system}",
            recommenders.cell_folder(self.ws, cell),
            seed=cell.seed,
            identity=identity,
            text=text,
            start=begins,
        )
        plain = params if text is None else baked(params, training.module, jnp.asarray(text))
        save_tree(recommenders.cell_path(self.ws, cell), plain, result)
        return result

    def _of(self, cell: Cell, way: str, text_width: int) -> TeacherTraining:
        if self._kind != (cell.name, way):
            config = cell.config(self.ws.experiment)
            self._training = TeacherTraining(
                self.ws.experiment,
                config,
                self.data.split,
                self.data.num_items,
                way=way,
                text_width=text_width,
                watch=self.ws.watch,
                saved=self.ws.saved,
            )
            self._kind = (cell.name, way)
        return self._training


def in_form(vectors: np.ndarray, config: AugmentConfig, width: int) -> np.ndarray:
    """Embeddings in the form that a recommender with an item table of `width` columns takes.

    Raises:
      UserError: the vectors cannot be standardized (`text_vectors.unit_variance`), or half of the table is no column.
    """
    if config.reduce == "learned":
        return unit_variance(vectors)
    if config.way != "halves":
        return principal(vectors, width, config.reduce)
    if width < 2:
        raise UserError(
            "augment.way is 'halves', but the teacher's width is 1: there are no halves"
        )
    return np.float32(config.start_std) * principal(vectors, width // 2, config.reduce)


def network_way(config: AugmentConfig, system: str) -> str:
    """How text enters the item table of a system's network in training; `initialise` needs no change of the network."""
    if system == PLAIN or config.way == "initialise":
        return "own"
    return "adapter" if config.way == ENSEMBLE else config.way


def valid_ndcg10(ws: Workspace, data: Data, cell: Cell) -> float:
    """The mean NDCG@10 of a trained recommender over the users who select its step, in full ranking without seen items."""
    teacher = recommenders.load_cell(ws, data, cell)
    asked = ConventionalSystem(teacher, data.split, cell.config(ws.experiment).max_length)
    rows = selecting_rows(asked.order("valid"), ws.experiment.teacher.valid_users)
    return mean_ndcg10(
        lambda rows: asked.scores("valid", rows),
        full_rankers(data.split, "valid")["full"],
        num_users=len(data.split.users("valid")),
        rows=rows,
        what=cell.system,
    )


def _tell(found: list[dict[str, Any]]) -> None:
    """Prints the validation NDCG@10 of each recommender, averaged over seeds."""
    for name, system in dict.fromkeys((row["teacher"], row["system"]) for row in found):
        values = [
            row["valid_ndcg10"]
            for row in found
            if (row["teacher"], row["system"]) == (name, system)
        ]
        say(
            f"  {display_name(name)}, {system}: validation NDCG@10 {np.mean(values):.4f} over {len(values)} seed(s)"
        )
