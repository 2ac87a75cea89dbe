"""The parts of a finished workdir that answer any history, by their names in the results.

Left out are those that know only the histories of their own users: `teacher.name=lists`, and hybrids with it.
"""

from collections.abc import Mapping
from functools import cached_property

from delrec_jax.config import Experiment
from delrec_jax.data.interactions import Catalogue
from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec import systems as language_systems
from delrec_jax.delrec.guides import Guides, make_guides
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import of_recommender
from delrec_jax.files import file_hash
from delrec_jax.p2rec.cells import cells
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers.item_to_item import READ_ITEMS
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import LISTS, closed_form
from delrec_jax.workdir import recommenders, title_recommenders
from delrec_jax.workdir.closed_forms import Choice, chosen, fitted, training_part
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN, Cell
from delrec_jax.workdir.workspace import Workspace


class RunParts:
    """The parts of one workdir (`parts.Parts`)."""

    def __init__(self, ws: Workspace, inputs: Inputs | None = None):
        """Loads nothing yet.

        Args:
          ws: the workdir, with at least `teach` finished.
          inputs: what has been read of it already; None = nothing yet.

        Raises:
          UserError: the run is not finished.
        """
        if not ws.finished("teach"):
            if earlier := ws.earlier_format("teach"):
                raise UserError(
                    f"{ws.root}: {earlier}: open it with the version that made it, or run it again with `delrec run`"
                )
            raise UserError(
                f"{ws.root} has no finished run: run `delrec run` with this --workdir first"
            )
        self._ws, self._inputs = ws, inputs or Inputs(ws)

    @property
    def place(self) -> str:
        """The workdir."""
        return str(self._ws.root)

    @property
    def experiment(self) -> Experiment:
        """The run's config."""
        return self._ws.experiment

    @property
    def identity(self) -> Mapping[str, str]:
        """The hashes of the finished stages' results, and of what `evaluate` chose by validation."""
        stages = (stage for stage in self._ws.stages if self._ws.finished(stage))
        chosen = (
            self._ws.folder("evaluate") / name for name in ("hybrids.json", title_recommenders.FILE)
        )
        return {stage: self._ws.content(stage) for stage in stages} | {
            path.name: file_hash(path) for path in chosen if path.exists()
        }

    @property
    def catalogue(self) -> Catalogue:
        """The items of the corpus."""
        return self._inputs.data.corpus.catalogue

    @cached_property
    def histories(self) -> Mapping[str, Ids]:
        """All items of each user of the corpus, oldest first, by the user's id."""
        found = self._inputs.data.corpus.interactions
        return {name: found.history(user) for user, name in enumerate(found.user_ids)}

    @cached_property
    def conventional(self) -> tuple[str, ...]:
        """Baselines, then the trained recommenders."""
        return (*self._baselines, *self._title_vectors, *self._cells)

    @cached_property
    def prompted(self) -> tuple[str, ...]:
        """The systems of the language model, once it is tuned."""
        if self.experiment.method == "p2rec" or not self._ws.finished("tune"):
            return ()
        words = self.experiment.data.corpus == "storefront"
        return language_systems.system_names(self.experiment, words=words)

    @cached_property
    def hybrids(self) -> Mapping[str, Mapping[str, float]]:
        """The weights that `evaluate` chose for the hybrids of every recommender under the first seed."""
        file = self._ws.folder("evaluate") / "hybrids.json"
        if not (self._ws.finished("evaluate") and file.exists()):
            return {}
        first = recommenders.first_cell(self.experiment)
        found = {}
        for row in read_json(file):
            name, weights = row.get("teacher", first.name), row["weights"]
            if row.get("seed", first.seed) == first.seed:
                found[self._called(row["system"], name)] = {
                    self._called(part, name): weight for part, weight in weights.items()
                }
        return found

    @property
    def main(self) -> str:
        """The last system of the run's method that is finished."""
        finals = {"delrec": "tune", "delrec_p2rec": "tune", "p2rec": "augment"}
        if not self._ws.finished(finals[self.experiment.method]):
            return PLAIN
        return AUGMENTED if self.experiment.method == "p2rec" else "delrec"

    @property
    def language(self) -> Language:
        """The language model that `pretrain` made or adopted."""
        return self._inputs.language

    def teacher(self, name: str) -> tuple[Teacher, int]:
        """Loads a conventional recommender, and says how many latest items it reads."""
        data = self._inputs.data
        if name in self._cells:
            cell = self._cells[name]
            length = cell.config(self.experiment).max_length
            return recommenders.load_cell(self._ws, data, cell), length
        if choice := self._title_vectors.get(name):
            vectors, config = self.language.title_vectors, self.experiment.baselines
            found = title_recommenders.title_vector_teacher(name, choice, vectors, data, config)
            return found, READ_ITEMS
        found = fitted(name, training_part(data), self._baselines[name])
        return found, closed_form(name).max_length

    def language_system(self, name: str) -> LanguageSystem:
        """Loads the language model's part of a system."""
        return language_systems.language_system(self._ws, self.language, name, self._guides)

    @cached_property
    def _baselines(self) -> Mapping[str, Choice]:
        return chosen(self._ws) if self._ws.finished("fit") else {}

    @cached_property
    def _title_vectors(self) -> Mapping[str, Choice]:
        return title_recommenders.stored(self._ws)

    @cached_property
    def _cells(self) -> Mapping[str, Cell]:
        """The trained recommenders of the first seed: the teacher of `teach`, those of `augment`, each plain and augmented."""
        if self.experiment.teacher.name == LISTS:
            return {}
        first = recommenders.first_cell(self.experiment)
        made = self.experiment.method != "delrec" and self._ws.finished("augment")
        served = [
            cell
            for cell in (cells(self.experiment) if made else ())
            if cell.seed == first.seed and cell.system in (PLAIN, AUGMENTED) and cell != first
        ]
        served.sort(key=lambda cell: cell.name != first.name)  # the teacher's own twin comes first
        return {self._called(cell.system, cell.name): cell for cell in (first, *served)}

    def _called(self, system: str, recommender: str) -> str:
        """The name of a system made with one of the recommenders: the teacher's needs no other name."""
        plain = recommender == self.experiment.teacher.name
        return system if plain else of_recommender(system, recommender)

    @cached_property
    def _guides(self) -> Guides | None:
        return make_guides(self._ws, self._inputs.data, self.language)
