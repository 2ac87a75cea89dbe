"""Rows that are no interactions: items that were shown to a user, marked 0 or false in a column of clicks."""

from delrec_jax.data.corpora.text_table import TextTable, folded
from delrec_jax.errors import UserError

_NAMES = ("label", "click", "clicked", "isclick", "isclicked")
_NOT_TAKEN = {"0", "0.0", "false", "no", "f", "n"}
_MARKS = _NOT_TAKEN | {"1", "1.0", "true", "yes", "t", "y"}


def refuse_unclicked(table: TextTable) -> None:
    """Refuses a file that also lists what was shown and not taken: its rows would all count as interactions.

    Args:
      table: a file of interactions.

    Raises:
      UserError: a column of clicks has only zeros and ones, or no and yes in another form, and zeros among them.
    """
    for name in table.frame.columns:
        if folded(name) not in _NAMES:
            continue
        marks = {str(mark).strip().casefold() for mark in table.frame[name].unique().to_list()}
        if marks <= _MARKS and (no := sorted(marks & _NOT_TAKEN)):
            raise UserError(
                f"{table.name}, line 1: column {name!r} marks rows with {no[0]}, which look like items that were shown, not "
                "taken; every row counts as an interaction: remove these rows, or rename the column if it means something else"
            )
