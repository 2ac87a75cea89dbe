"""DELRec with Flan-T5-XXL on MovieLens-100K: a TPU v5e slice of 16 chips (4x4, two or four hosts).

Command: delrec plan --config=configs/delrec/ml100k_flan_t5_xxl.py --devices=16 --chip=v5e
         CONFIG=configs/delrec/ml100k_flan_t5_xxl.py ... launch/tpu_vm.sh --config.data.path=PATH/TO/ml-100k
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item); google/flan-t5-xxl from the Hugging Face hub.
Hardware: TPU v5e-16, by the plan alone: 22 GB of weights in bfloat16, split over all 16 chips.
NOT TRAINED BY US: the weights could not be downloaded where this was written. Only the plan was computed (docs/results.md); no
figure of accuracy or time is known, and learning rates are not tuned.
"""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(corpus="atomic", path="../shared/data/ml-100k", domain="movies")
    config.prompts.update(max_tokens=512, max_history=10, show_candidates=True)
    config.lm.weights = "google/flan-t5-xxl"
    config.lm.t5.update(dtype="bfloat16", param_dtype="bfloat16", remat=True, scan_layers=True)
    config.mesh.update(data=-1, fsdp=16, tensor=1)
    config.teacher.batch_size = 64
    config.teacher.optimizer.schedule = "constant"
    config.teacher.loop.update(steps=1400, evaluate_every=100, patience=4)
    config.distill.update(length=100, positions=8, batch_size=64)
    config.distill.optimizer.update(name="lion", learning_rate=5e-3, weight_decay=1e-5, clip=2.0)
    config.distill.optimizer.update(schedule="linear", final_fraction=0.0, warmup_steps=100)
    config.distill.loop.update(steps=800, evaluate_every=100, checkpoint_every=100)
    config.tune.update(positions=8, batch_size=64, loss_over="candidates", num_candidates=20)
    config.tune.optimizer.update(name="lion", learning_rate=1e-4, weight_decay=1e-6, clip=2.0)
    config.tune.optimizer.update(schedule="linear", final_fraction=0.0, warmup_steps=100)
    config.tune.loop.update(steps=1400, evaluate_every=100, checkpoint_every=100)
    return config
