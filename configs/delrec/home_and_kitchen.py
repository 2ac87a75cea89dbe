"""DELRec's published settings on Amazon Home and Kitchen; `reference.py` says what they are, what differs, and the arguments.

Command: delrec run --config=configs/delrec/home_and_kitchen.py --config.data.path=PATH/TO/home --workdir=runs/home_xl
         (or :small, :base, :large, :xxl; :small,sequence for the verbalizer that Flan-T5 was trained for)
Data: atomic files; or, downloaded, --config.data.corpus=amazon --config.data.edition=2014
      --config.data.category=Home_and_Kitchen.
NOT TRAINED BY US: neither the weights nor this corpus with titles could be had where this was written; no text of it was seen.
Differs besides: the 5-core, as for Beauty (data.k_core); items are called "home products" and not "furniture and kitchenware".
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config(argument: str | None = None) -> ConfigDict:
    config = base_config(__file__, "beauty.py", argument=argument)
    config.data.domain = "home"
    config.teacher.loop.update(steps=10350, evaluate_every=345, checkpoint_every=1035)
    return config
