"""Recommendation Pattern Simulating (RPS; DELRec, stage 1): which item would the teacher rank first?

The text names the teacher and may show its ranks 2..h. The label is the teacher's top-1 (the reference) or, list-wise,
softmax(f(S) / tau) over the candidates, so that the whole order is distilled and not only its head.
"""

import numpy as np
from jaxtyping import Float

from delrec_jax.data.prompts import Pieces, assemble, join_titles, list_candidates_if_shown
from delrec_jax.data.templates import CANDIDATES, HISTORY, PATTERN, Field, Template
from delrec_jax.data.title_tokens import Ids, Items
from delrec_jax.delrec.material import Material, PromptExample
from delrec_jax.errors import UserError


class PatternSimulating:
    """The task: every row of the material is asked for the teacher's order of its list, the candidates in random order."""

    name = "rps"
    title = "Recommendation Pattern Simulating (RPS)"
    template: Template = (
        *HISTORY,
        *PATTERN,
        *CANDIDATES,
        ". After the first the {teacher} model ranks :",
        Field.RANKED,
        ". The next {noun} predicted by the {teacher} model might be :",
        Field.MASK,
    )

    def positions(self, material: Material) -> range:
        """Every row."""
        return range(len(material.rows.users))

    def example(
        self, material: Material, positions: range, row: int, rng: np.random.Generator
    ) -> PromptExample:
        """The row with its list."""
        order = rng.permutation(material.lists.items.shape[1])
        return listed_example(material, row, order, pattern=material.slots)


def listed_example(
    material: Material, row: int, order: np.ndarray, *, pattern: Ids
) -> PromptExample:
    """The RPS text of a row.

    Args:
      material: with the teacher's lists.
      row: which.
      order: places of the list [C], in the order in which the candidates are shown.
      pattern: soft slots, words, or nothing.
    """
    config, items = material.config.distill, material.lists.items[row]
    target = teacher_target(
        material.lists.scores[row], kind=config.rps_label, temperature=config.temperature
    )
    text = rps_text(
        material.pieces,
        material.history(row),
        pattern=pattern,
        candidates=items[order],
        ranked=items[1 : config.top_h],
    )
    return PromptExample(
        ids=text,
        candidates=items[order],
        targets=target[order],
        task=material.task_number(PatternSimulating.name),
    )


def rps_text(
    pieces: Pieces,
    history: Items,
    *,
    pattern: Ids,
    candidates: Items = (),
    ranked: Items = (),
) -> Ids:
    """Its tokens; `ranked` are the teacher's ranks 2..h, shown on demand."""
    fields = {
        Field.PATTERN: pattern,
        Field.CANDIDATES: list_candidates_if_shown(pieces, candidates),
        Field.RANKED: join_titles(pieces, ranked),
    }
    return assemble(pieces, PatternSimulating.name, fields, history)


def teacher_target(
    teacher_scores: Float[np.ndarray, "C"], *, kind: str, temperature: float
) -> Float[np.ndarray, "C"]:
    """Target distribution over the candidates.

    Args:
      teacher_scores: the teacher's scores of the candidates.
      kind: `top1` or `listwise`.
      temperature: tau of `listwise`.

    Raises:
      UserError: unknown kind.
    """
    if kind == "top1":
        return (np.arange(len(teacher_scores)) == teacher_scores.argmax()).astype(np.float32)
    if kind == "listwise":
        scaled = teacher_scores.astype(np.float64) / temperature
        exp = np.exp(scaled - scaled.max())
        return (exp / exp.sum()).astype(np.float32)
    raise UserError(f"distill.rps_label is {kind!r}: use 'top1' or 'listwise'")
