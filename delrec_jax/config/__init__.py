"""The complete experiment as frozen dataclasses, built strictly from a config file and its overrides.

`--config.distill.loop.steps=400` overrides a value; a key that does not exist or a value of the wrong type is an error that
names the key and, for an unknown key, the nearest one (`tree`). The dataclasses are in `language`, `teacher`, `delrec`,
`p2rec` and `baselines`, or next to the code that they configure; `experiment` puts them together, `files` reads config files.
"""

from delrec_jax.config.baselines import BaselinesConfig
from delrec_jax.config.delrec import DistillConfig, TuneConfig
from delrec_jax.config.distill_tasks import TaskShare
from delrec_jax.config.experiment import (
    METHODS,
    YOUNGER,
    CandidatesConfig,
    EvaluateConfig,
    Experiment,
    default_config,
    from_config,
    to_dict,
)
from delrec_jax.config.files import ablated, as_config, base_config, read_config
from delrec_jax.config.language import GateConfig, LMConfig, PretrainConfig, PretrainTextConfig
from delrec_jax.config.p2rec import AugmentConfig, ParseConfig
from delrec_jax.config.teacher import TeacherConfig
from delrec_jax.config.tree import leaf_keys, leaf_values, unknown_key

__all__ = [
    "METHODS",
    "YOUNGER",
    "AugmentConfig",
    "BaselinesConfig",
    "CandidatesConfig",
    "DistillConfig",
    "EvaluateConfig",
    "Experiment",
    "GateConfig",
    "LMConfig",
    "ParseConfig",
    "PretrainConfig",
    "PretrainTextConfig",
    "TaskShare",
    "TeacherConfig",
    "TuneConfig",
    "ablated",
    "as_config",
    "base_config",
    "default_config",
    "from_config",
    "leaf_keys",
    "leaf_values",
    "read_config",
    "to_dict",
    "unknown_key",
]
