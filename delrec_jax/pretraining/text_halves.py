"""A task's text in two halves, before and after the end of its history: pre-training puts masks and more questions around them.

Only for tasks and settings in which no other fields surround the history (no candidates, no ranks).
"""

import numpy as np

from delrec_jax.data.prompts import Pieces, after_history, join_titles
from delrec_jax.data.templates import Field
from delrec_jax.data.title_tokens import Ids, Items


def opening(pieces: Pieces, task: str, history: Items, pattern: Ids) -> Ids:
    """Returns a task's text up to the end of its history; `question` continues it."""
    template = pieces.tasks[task, len(pattern) > 0]
    fields = {Field.PATTERN: pattern}
    head = template[: after_history(template) - 1]
    parts = [fields[part] if isinstance(part, Field) else part for part in head]
    return np.concatenate([pieces.begin, *parts, join_titles(pieces, history)])


def question(pieces: Pieces, task: str, pattern: Ids) -> Ids:
    """Returns what follows the history in a task's text, without the end of the text: the counterpart of `opening`."""
    template = pieces.tasks[task, len(pattern) > 0]
    fields = {Field.PATTERN: pattern, Field.MASK: np.array([pieces.sentinel], np.int32)}
    tail = template[after_history(template) :]
    return np.concatenate([fields[part] if isinstance(part, Field) else part for part in tail])
