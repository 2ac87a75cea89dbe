"""The texts of DELRec's tasks by name, as `delrec run` tokenises them."""

from delrec_jax.data.templates import NEXT_ITEM, NEXT_ITEM_TEMPLATE
from delrec_jax.delrec.pattern_simulating import PatternSimulating
from delrec_jax.delrec.temporal_analysis import TemporalAnalysis
from delrec_jax.p2rec.preference_text import PREFERENCE, TEMPLATE

TASKS = {
    "ta": TemporalAnalysis.template,
    "rps": PatternSimulating.template,
    NEXT_ITEM: NEXT_ITEM_TEMPLATE,
}
EVERY = {**TASKS, PREFERENCE: TEMPLATE}
