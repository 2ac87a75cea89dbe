"""What the stages of one command read of a workdir: each is read once, when first asked for, and handed on."""

from collections.abc import Mapping
from functools import cached_property

from delrec_jax.data.templates import Template
from delrec_jax.delrec.prompt_tasks import prompt_templates
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preference_text import PREFERENCE, TEMPLATE
from delrec_jax.workdir.language_model import Language, load_language
from delrec_jax.workdir.prepared import Data, load_data
from delrec_jax.workdir.workspace import Workspace


class Inputs:
    """The corpus, the texts' templates and the language model of a workdir."""

    def __init__(self, ws: Workspace):
        """Reads nothing yet: a stage that makes a thing runs before the one that asks for it."""
        self._ws = ws

    @cached_property
    def data(self) -> Data:
        """What `prepare` left."""
        return load_data(self._ws)

    @cached_property
    def templates(self) -> Mapping[str, Template]:
        """DELRec's texts by task, on whose words a tokenizer is trained; P2Rec's text has no others."""
        found = prompt_templates(self._ws.experiment)
        if PREFERENCE in found:
            raise UserError(f"distill.tasks.{PREFERENCE}: P2Rec's text has this name; take another")
        return found

    @cached_property
    def language(self) -> Language:
        """What `pretrain` left."""
        return load_language(self._ws, self.data, {**self.templates, PREFERENCE: TEMPLATE})
