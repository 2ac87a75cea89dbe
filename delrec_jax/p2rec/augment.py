"""`delrec augment`, P2Rec's information augmentation: conventional recommenders with the LM's item embeddings.

Every recommender is trained plain, with the tuned model's embeddings, and with those of two controls: the untuned model's
embeddings, and the tuned model's of the titles of other items. All have the same rows, budget and selection.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from delrec_jax.config import AugmentConfig
from delrec_jax.distributed import on_main
from delrec_jax.files import file_hash
from delrec_jax.p2rec import files
from delrec_jax.p2rec.cells import cells
from delrec_jax.p2rec.item_embeddings import make_embeddings
from delrec_jax.p2rec.text_vectors import principal, standardised
from delrec_jax.teachers.network import baked
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import PLAIN, Cell
from delrec_jax.workdir.teacher_training import TeacherTraining
from delrec_jax.workdir.workspace import Workspace, write_json


def augment(ws: Workspace, data: Data, language: Language) -> None:
    """Makes the embeddings, then trains every recommender of the comparison."""
    make_embeddings(ws, data, language)
    trainers = _Trainers(ws, data)
    found = [trainers.train(cell) for cell in cells(ws.experiment)]
    on_main(lambda: write_json(ws.folder("augment") / "augment.json", found))
    _tell(found)


class _Trainers:
    """Trains cells; consecutive cells with the same network and the same use of text share a compiled step."""

    def __init__(self, ws: Workspace, data: Data):
        self.ws, self.data = ws, data
        self._kind: tuple[str, str] | None = None
        self._training: TeacherTraining

    def train(self, cell: Cell) -> dict[str, Any]:
        """Trains or resumes a cell, or reads its finished result; returns its validation metric and checkpoint."""
        path = recommenders.cell_path(self.ws, cell)
        taught = cell == recommenders.first_cell(self.ws.experiment)
        result = load_tree(path)[1] if taught else self._fit(cell)
        return {
            "teacher": cell.name,
            "seed": cell.seed,
            "system": cell.system,
            "valid_ndcg10": result["best_value"],
            "step": result["best_step"],
            "checkpoint": file_hash(path),
        }

    def _fit(self, cell: Cell) -> dict[str, Any]:
        config = self.ws.experiment.augment
        way = network_way(config, cell.system)
        vectors = self._vectors(cell)
        text = None if way == "own" else vectors
        training = self._of(cell, way, 0 if text is None else text.shape[1])
        begins = None if vectors is None or way != "own" else (vectors, config.start_std)
        params, result = training.fit(
            f"augment/{cell.name}/seed-{cell.seed}/{cell.system}",
            recommenders.cell_folder(self.ws, cell),
            seed=cell.seed,
            identity=self.ws.identity("augment")
            | {"recommender": f"{cell.name}, {cell.system}, seed {cell.seed}"},
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
            )
            self._kind = (cell.name, way)
        return self._training

    def _vectors(self, cell: Cell) -> np.ndarray | None:
        """A system's embeddings in the form that its recommender takes; None for a plain one."""
        if cell.system == PLAIN:
            return None
        path = files.embeddings_path(self.ws, cell.system, cell.seed)
        found = files.load_embeddings(path, ids=self.data.corpus.catalogue.ids)
        if self.ws.experiment.augment.reduce == "learned":
            return standardised(found)
        return principal(found, cell.config(self.ws.experiment).shape.width)


def network_way(config: AugmentConfig, system: str) -> str:
    """How text enters the item table of a system's network in training; `initialise` needs no change of the network."""
    return "own" if system == PLAIN or config.way == "initialise" else config.way


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
