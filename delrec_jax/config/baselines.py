"""The settings of the baselines: closed-form recommenders, and hybrids of any systems of a run."""

import re
from dataclasses import dataclass

from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import PARTS_OF_HYBRIDS, hybrid_name
from delrec_jax.teachers.registry import CLOSED_FORMS


@dataclass(frozen=True)
class BaselinesConfig:
    """What every result is compared with.

    Attributes:
      names: the closed-form recommenders: `popularity`, `itemknn`, `markov`, `ease`, `tfidf`, `cease`. Their settings are
        chosen by validation.
      title_vectors: also rank by the similarity of the language model's own vectors of titles (DELRec and P2Rec), and, with
        `cease` among the names, by CEASE with these vectors.
      hybrids: sums of standardized scores with weights chosen by validation, each as `SYSTEM+SYSTEM+...`. A command ranks those
        whose systems it has.
      users: number of validation users, at most, that settings and weights are chosen by.
      seed: seed of the draw of these users; not the experiment's, so that baselines are the same for all its seeds.
    """

    names: tuple[str, ...] = tuple(CLOSED_FORMS)
    title_vectors: bool = True
    hybrids: tuple[str, ...] = (
        "teacher+tfidf",
        "markov+ease",
        "markov+ease+tfidf",
        "markov+cease",
        "teacher+markov+ease+tfidf",
        "delrec+teacher",
        "delrec+teacher+tfidf",
    )
    users: int = 3000
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("baselines.users", self.users, 1)
        for name in self.names:
            if name not in CLOSED_FORMS:
                raise UserError(
                    f"baselines.names has {name!r}: use some of {', '.join(CLOSED_FORMS)}"
                )
        parts_of = [frozenset(self.parts(text)) for text in self.hybrids]
        for key, given, same in (
            ("names", self.names, self.names),
            ("hybrids", self.hybrids, parts_of),
        ):
            if twice := [one for place, one in enumerate(given) if same[place] in same[:place]]:
                raise UserError(f"baselines.{key} has {twice[0]!r} twice: give each once")
        for text in self.hybrids:
            parts = self.parts(text)
            unknown = [part for part in parts if part not in PARTS_OF_HYBRIDS]
            if unknown or len(parts) < 2 or len(set(parts)) < len(parts):
                raise UserError(
                    f"baselines.hybrids has {text!r}: give two or more different systems as A+B, from "
                    f"{', '.join(PARTS_OF_HYBRIDS)}"
                )

    @staticmethod
    def parts(text: str) -> tuple[str, ...]:
        """Returns the systems of one hybrid."""
        return tuple(re.split(r"\s*\+\s*", text.strip()))

    @property
    def hybrid_parts(self) -> dict[str, tuple[str, ...]]:
        """The systems of each hybrid, by its name in the results."""
        found = [self.parts(text) for text in self.hybrids]
        return {hybrid_name(parts): parts for parts in found}
