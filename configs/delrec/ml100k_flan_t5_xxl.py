"""DELRec with Flan-T5-XXL on MovieLens-100K: a TPU v5e slice of 16 chips (4x4, two or four hosts).

Command: delrec plan --config=configs/delrec/ml100k_flan_t5_xxl.py --devices=16 --chip=v5e
         CONFIG=configs/delrec/ml100k_flan_t5_xxl.py ... launch/tpu_vm.sh --config.data.path=PATH/TO/ml-100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item); google/flan-t5-xxl from the Hugging Face hub.
Hardware: TPU v5e-16, according to the plan only: 22 GB of weights in bfloat16, split over all 16 chips.
NOT TRAINED BY US: the weights could not be downloaded where this was written. Only the plan was computed (docs/results.md);
accuracy and time are unknown, and learning rates are not tuned.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "ml100k_flan_t5_xl.py")
    config.lm.weights = "google/flan-t5-xxl"
    config.mesh.update(data=-1, fsdp=16, tensor=1)
    config.distill.batch_size = 64
    config.tune.batch_size = 64
    return config
