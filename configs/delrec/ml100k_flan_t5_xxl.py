"""DELRec with Flan-T5-XXL on MovieLens-100K: a TPU v5e slice of 16 chips (4x4, two or four hosts); `ml100k.py:xxl,pod`.

Command: delrec plan --config=configs/delrec/ml100k_flan_t5_xxl.py --devices=16 --chip=v5e
         CONFIG=configs/delrec/ml100k_flan_t5_xxl.py ... launch/tpu_vm.sh --config.data.path=PATH/TO/ml-100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item); google/flan-t5-xxl from the Hugging Face hub.
Hardware: TPU v5e-16, according to the plan only: 22 GB of weights in bfloat16, split over all 16 chips.
NOT TRAINED BY US: the weights could not be downloaded where this was written. Only the plan was computed
(docs/results/plans.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    return base_config(__file__, "ml100k.py", argument="xxl,pod")
