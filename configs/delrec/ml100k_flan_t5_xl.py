"""DELRec with Flan-T5-XL on MovieLens-100K: one NVIDIA H100 with 80 GB.

Command: delrec plan --config=configs/delrec/ml100k_flan_t5_xl.py --devices=1 --chip=h100
         delrec run --config=configs/delrec/ml100k_flan_t5_xl.py --config.data.path=PATH/TO/ml-100k --workdir=runs/ml100k_xl
Data: RecBole's atomic files of MovieLens-100K (ml-100k.inter, ml-100k.item); google/flan-t5-xl from the Hugging Face hub.
Hardware: one H100-80GB, according to the plan only.
NOT TRAINED BY US: the weights could not be downloaded where this was written. Only the plan was computed (docs/results.md);
accuracy and time are unknown, and learning rates are not tuned. Settings follow the reference (20 candidates in the text,
stage 2 over them), not its ranks of 320.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "../ml100k_mini.py", only=("data", "teacher"))
    config.prompts.update(max_tokens=512, max_history=10, show_candidates=True)
    config.lm.weights = "google/flan-t5-xl"
    config.lm.t5.update(dtype="bfloat16", param_dtype="bfloat16", remat=True, scan_layers=True)
    config.distill.update(length=100, positions=8, batch_size=32)
    config.distill.optimizer.update(name="lion", learning_rate=5e-3, weight_decay=1e-5, clip=2.0)
    config.distill.optimizer.update(schedule="linear", final_fraction=0.0, warmup_steps=100)
    config.distill.loop.update(steps=800, evaluate_every=100, checkpoint_every=100)
    config.tune.update(positions=8, batch_size=32, loss_over="candidates", num_candidates=20)
    config.tune.optimizer.update(name="lion", learning_rate=1e-4, weight_decay=1e-6, clip=2.0)
    config.tune.optimizer.update(schedule="linear", final_fraction=0.0, warmup_steps=100)
    config.tune.loop.update(steps=1400, evaluate_every=100, checkpoint_every=100)
    return config
