"""DELRec's published settings on Amazon Beauty; `reference.py` says what they are, what differs, and the arguments.

Command: delrec run --config=configs/delrec/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/beauty_xl
         (or :small, :base, :large, :xxl; :small,sequence for the verbalizer that Flan-T5 was trained for)
Data: atomic files; or, downloaded, --config.data.corpus=amazon --config.data.edition=2014 --config.data.category=Beauty.
NOT TRAINED BY US: the weights could not be downloaded where this was written.
Differs besides: users and items with fewer than 5 interactions are left out, as in the usual 5-core (data.k_core).
Titles have up to 272 tokens: 19 % of RPS's texts lose history and 5 % the ends of titles (TA 3 and 2 %, stage 2 2 and 0 %).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config(argument: str | None = None) -> ConfigDict:
    config = base_config(__file__, "reference.py", argument=argument)
    config.data.update(domain="items", k_core=5)
    config.teacher.batch_size = max(32, config.teacher.batch_size)  # 64 with :v5p
    config.teacher.loop.update(steps=3280, evaluate_every=82, checkpoint_every=820, patience=12)
    return config
