"""Recommendation Pattern Simulating (RPS; DELRec, stage 1): which item would the teacher rank first?

The text names the teacher and may show the items that it ranks 2 to h. The label is the teacher's top-1 item (as in the
reference) or, list-wise, softmax(f(S) / tau) over the candidates, which distills the full order and not only its head.
"""

import numpy as np
from jaxtyping import Float

from delrec_jax.data.prompts import Pieces, assemble, fitting, join_titles, list_candidates_if_shown
from delrec_jax.data.templates import CANDIDATES, HISTORY, PATTERN, Field, Template
from delrec_jax.data.title_tokens import Ids, Items
from delrec_jax.delrec.material import Material, PromptExample
from delrec_jax.errors import UserError


class PatternSimulating:
    """The task: rank a row's list as the teacher does; the candidates are shown in random order."""

    name = "rps"
    title = "Recommendation Pattern Simulating (RPS)"
    lengths_stay = True
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
        """Indices of all rows: every row can be asked."""
        return range(len(material.rows.users))

    def example(
        self, material: Material, positions: range, row: int, rng: np.random.Generator
    ) -> PromptExample:
        """The RPS text of a row, its list in random order."""
        order = rng.permutation(material.lists.items.shape[1])
        return listed_example(material, row, order, pattern=material.slots)


def listed_example(
    material: Material, row: int, order: np.ndarray, *, pattern: Ids
) -> PromptExample:
    """The RPS text of a row.

    Args:
      material: holds the teacher's lists.
      row: index of the row.
      order: permutation of the list [C]: the order in which the candidates are shown.
      pattern: soft prompt slots, words, or nothing.
    """
    config, items = material.config.distill, material.lists.items[row]
    target = teacher_target(
        material.lists.scores[row], kind=config.rps_label, temperature=config.temperature
    )
    history, shown, ranked = material.history(row), items[order], items[1 : config.top_h]
    text = material.text(
        lambda pieces, pattern: rps_text(
            pieces, history, pattern=pattern, candidates=shown, ranked=ranked
        ),
        pattern,
    )
    return PromptExample(
        ids=text.ids,
        candidates=shown,
        targets=target[order],
        task=material.task_number(PatternSimulating.name),
        owners=text.owners,
        guides=material.guide(row),
    )


def rps_text(
    pieces: Pieces,
    history: Items,
    *,
    pattern: Ids,
    candidates: Items = (),
    ranked: Items = (),
) -> Ids:
    """Tokens of an RPS text; `ranked`, the teacher's ranks 2 to h, is shown only with `prompts.show_ranks`."""

    def build(pieces: Pieces) -> Ids:
        fields = {
            Field.PATTERN: pattern,
            Field.CANDIDATES: list_candidates_if_shown(pieces, candidates),
            Field.RANKED: join_titles(pieces, ranked),
        }
        return assemble(pieces, PatternSimulating.name, fields, history)

    return fitting(pieces, build)


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
        top = np.arange(len(teacher_scores)) == teacher_scores.argmax()
        one_hot: np.ndarray = top.astype(np.float32)
        return one_hot
    if kind == "listwise":
        scaled = teacher_scores.astype(np.float64) / temperature
        exp = np.exp(scaled - scaled.max())
        shares: np.ndarray = (exp / exp.sum()).astype(np.float32)
        return shares
    raise UserError(f"distill.rps_label is {kind!r}: use 'top1' or 'listwise'")
