"""What a place holds that can be asked, whether a run's workdir (`run_parts`) or a folder from a hub (`hub.opened`)."""

from collections.abc import Mapping
from typing import Protocol

from delrec_jax.config import Experiment
from delrec_jax.data.interactions import Catalogue
from delrec_jax.data.title_tokens import Ids
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem


class Parts(Protocol):
    """The parts that systems are made of; each is loaded when it is first asked for."""

    @property
    def place(self) -> str:
        """Where they are from, for messages."""
        ...

    @property
    def experiment(self) -> Experiment:
        """The settings that they were made with."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What identifies their content, by name."""
        ...

    @property
    def catalogue(self) -> Catalogue:
        """The items that can be recommended."""
        ...

    @property
    def histories(self) -> Mapping[str, Ids]:
        """All items of each known user, oldest first, by the user's id; empty where no interactions are."""
        ...

    @property
    def conventional(self) -> tuple[str, ...]:
        """Names of the recommenders that read item numbers."""
        ...

    @property
    def prompted(self) -> tuple[str, ...]:
        """Names of the systems of the language model."""
        ...

    @property
    def hybrids(self) -> Mapping[str, Mapping[str, float]]:
        """The weights of each hybrid's systems; some of these may be missing here."""
        ...

    @property
    def main(self) -> str:
        """The system that all this was made for."""
        ...

    @property
    def language(self) -> Language:
        """The language model.

        Raises:
          UserError: there is none.
        """
        ...

    def teacher(self, name: str) -> tuple[Teacher, int]:
        """Loads one of `conventional`, and says how many latest items it reads."""
        ...

    def language_system(self, name: str) -> LanguageSystem:
        """Loads one of `prompted`."""
        ...
