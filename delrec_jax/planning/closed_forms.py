"""What recommenders in closed form need: matrices of items by items, which grow with the square of the catalogue."""

from delrec_jax.config import Experiment
from delrec_jax.config.p2rec import SOLVED
from delrec_jax.planning.fit import in_units
from delrec_jax.teachers.item_to_item import MOST_ITEMS

_CHOOSING, _CHOOSING_CEASE = 6, 9
"""Matrices at the peak of a process that chose settings for 5,000 items."""


def closed_forms_line(experiment: Experiment, items: int) -> str:
    """Says how much memory the closed forms of a config take with so many items; empty if it has none with a matrix.

    While a form is chosen, host memory holds the common users, the best matrix so far, the next one, and what these are made
    from. `evaluate` holds the matrices of all baselines, on the device that ranks, while it chooses `lm_cease`.
    """
    names = [name for name in experiment.baselines.names if name != "popularity"]
    solved = experiment.method == "p2rec" and SOLVED in experiment.augment.teachers
    if not names and not solved:
        return ""
    told = f"CLOSED FORMS  {', '.join(names) or SOLVED}: "
    if items > MOST_ITEMS:
        return f"{told}left out, since the catalogue has more than {MOST_ITEMS:,} items"
    one, cease = 4 * items**2, "cease" in names or solved
    choosing = (_CHOOSING_CEASE if cease else _CHOOSING) * one
    return (
        f"{told}about {in_units(choosing)} of host memory while the settings of one are chosen, and "
        f"{in_units(len(names) * one)} on the first device for all that are ranked ({in_units(one)} for each matrix of items "
        "by items)"
    )
