"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on Amazon Beauty (2014, 5-core).

Command: delrec run --config=configs/minilm/beauty.py --config.data.path=PATH/TO/beauty --workdir=runs/minilm_beauty
Data: atomic files (beauty.inter, beauty.item); or, downloaded, as in configs/teachers/beauty.py.
Hardware and time: 2 CPU cores, 128 minutes beside other jobs with --config.evaluate.users=6000 (of 22,363). Most of it is stage
2 with its two controls, choosing CEASE, and the weights of hybrids.
Expect, `full` NDCG@10 of one seed and 6,000 users (docs/results/sentence_encoder_beauty.md): SASRec 0.059, the frozen encoder
0.030, with the distilled prompt 0.036, DELRec 0.036, tuned without a prompt 0.037; Markov + CEASE 0.071, and the best sum
by validation, Teacher + Markov + EASE + TF-IDF + DELRec, 0.072.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    beauty = base_config(__file__, "../teachers/beauty.py")
    config.teacher, config.evaluate = beauty.teacher, beauty.evaluate
    # Of 22,363 users, two positions each are more than stage 2 reads.
    config.distill.positions = 1
    config.tune.positions = 2
    config.tune.loop.steps = 1200
    # Seven times as many users to rank as in office.py: of the controls, those that decide.
    config.distill.controls = ()
    config.tune.controls = ("none", "random")
    return config
