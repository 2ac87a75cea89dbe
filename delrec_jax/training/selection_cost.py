"""What it costs to select parameters by texts that are all read again at every evaluation."""

from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.writers import say

_MOST = 10  # times the texts of the steps between two evaluations


def warn_of_costly_selection(
    what: str, texts: int, *, batch_size: int, loop: LoopConfig, remedy: str
) -> None:
    """Says if selection reads many times the texts that training reads, as it does where a corpus has millions of users.

    Args:
      what: what is selected.
      texts: those that are read at each evaluation.
      batch_size: texts per step.
      loop: how often it is evaluated.
      remedy: the setting that reads a draw of them.
    """
    trained = loop.evaluate_every * batch_size
    if loop.steps and texts > _MOST * trained:
        say(
            f"  WARNING: {what} is selected by {texts} texts, read again after every {trained} texts of training: set {remedy} "
            "to read a draw of them, or evaluate less often"
        )
