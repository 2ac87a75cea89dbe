"""What the stages of one command read from a workdir: each part is read once, when it is first needed, and shared."""

from collections.abc import Mapping
from functools import cached_property

from delrec_jax.config import Experiment
from delrec_jax.data.templates import Template
from delrec_jax.delrec.prompt_tasks import prompt_templates
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preference_text import PREFERENCE, TEMPLATE
from delrec_jax.workdir.language_model import Language, Texts, load_language, load_texts
from delrec_jax.workdir.prepared import Data, load_data
from delrec_jax.workdir.workspace import Workspace


class Inputs:
    """The corpus, the texts' templates and the language model of a workdir."""

    def __init__(self, ws: Workspace):
        """Reads nothing yet: the stage that makes a part may still have to run before the stage that needs it."""
        self._ws = ws

    @cached_property
    def data(self) -> Data:
        """What `prepare` stored."""
        return load_data(self._ws)

    @cached_property
    def templates(self) -> Mapping[str, Template]:
        """DELRec's templates by task; a tokenizer is trained on their words, which include those of P2Rec's template."""
        return templates_of(self._ws.experiment)

    @cached_property
    def language(self) -> Language:
        """The language model that `pretrain` made or adopted."""
        return load_language(self._ws, self.data, self._every_template)

    @cached_property
    def texts(self) -> Texts:
        """What turns items into texts; unlike `language`, it needs no weights."""
        return load_texts(self._ws, self.data, self._every_template)

    @property
    def _every_template(self) -> Mapping[str, Template]:
        return with_preference(self.templates)


def templates_of(experiment: Experiment) -> Mapping[str, Template]:
    """Returns DELRec's templates by task.

    Raises:
      UserError: a task has the name of P2Rec's text.
    """
    found = prompt_templates(experiment)
    if PREFERENCE in found:
        raise UserError(f"distill.tasks.{PREFERENCE}: P2Rec's text has this name; use another")
    return found


def with_preference(templates: Mapping[str, Template]) -> Mapping[str, Template]:
    """Returns all templates that a language model's texts are made of: these, and that of P2Rec."""
    return {**templates, PREFERENCE: TEMPLATE}
