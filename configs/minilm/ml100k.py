"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on MovieLens-100K.

Command: delrec run --config=configs/minilm/ml100k.py --config.data.path=PATH/TO/ml-100k --workdir=runs/minilm_ml100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item).
Hardware and time: not yet run.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    config.data.domain = "movies"
    config.teacher = base_config(__file__, "../teachers/ml_100k.py").teacher
    # Titles are short, and users have a hundred movies.
    config.prompts.update(max_history=6, max_title_tokens=6)
    config.distill.positions = 8
    config.tune.positions = 16
    return config
