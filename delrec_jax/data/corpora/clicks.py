"""Rows that are no interactions: items that were shown to a user, marked 0 in a column of clicks."""

from delrec_jax.data.corpora.text_table import TextTable, folded
from delrec_jax.errors import UserError

_MARKS = ("label", "click", "clicked", "isclick", "isclicked")


def refuse_unclicked(table: TextTable) -> None:
    """Refuses a file that also lists what was shown and not taken: its rows would all count as interactions.

    Args:
      table: a file of interactions.

    Raises:
      UserError: a column of clicks has only zeros and ones, and zeros among them.
    """
    for name in table.frame.columns:
        if folded(name) not in _MARKS:
            continue
        marks = {str(mark).removesuffix(".0") for mark in table.frame[name].unique().to_list()}
        if marks <= {"0", "1"} and "0" in marks:
            raise UserError(
                f"{table.name}, line 1: column {name!r} marks rows with 0, which look like items that were shown, not taken; "
                "every row counts as an interaction: remove these rows, or rename the column if it means something else"
            )
