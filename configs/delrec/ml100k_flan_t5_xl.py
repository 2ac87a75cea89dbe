"""DELRec with Flan-T5-XL on MovieLens-100K, as published: `ml100k.py` (and `reference.py`, which says what differs).

Command: delrec plan --config=configs/delrec/ml100k_flan_t5_xl.py --devices=1 --chip=h100
         delrec run --config=configs/delrec/ml100k_flan_t5_xl.py --config.data.path=PATH/TO/ml-100k --workdir=runs/ml100k_xl
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item); google/flan-t5-xl from the Hugging Face hub.
Hardware: one H100-80GB, according to the plan only: 20.4 GiB by its estimate, 33.5 by XLA for CPU.
NOT TRAINED BY US: the weights could not be downloaded where this was written. Only the plan was computed
(docs/results/plans.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    return base_config(__file__, "ml100k.py", argument="xl")
