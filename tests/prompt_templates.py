"""The texts of DELRec's tasks by name, as `delrec run` tokenises them."""

from delrec_jax.data.sequential_recommendation import LSR, LSR_TEMPLATE
from delrec_jax.delrec.pattern_simulating import PatternSimulating
from delrec_jax.delrec.temporal_analysis import TemporalAnalysis
from delrec_jax.p2rec.preference_text import PREFERENCE, TEMPLATE

TASKS = {
    "ta": TemporalAnalysis.template,
    "rps": PatternSimulating.template,
    LSR: LSR_TEMPLATE,
}
EVERY = {**TASKS, PREFERENCE: TEMPLATE}
