"""P2Rec end to end on Amazon Beauty (2014, 5-core) with a real sentence encoder, all-MiniLM-L6-v2.

Command: delrec run --config=configs/p2rec/minilm_beauty.py --config.data.path=PATH/TO/beauty
         --workdir=runs/p2rec_minilm_beauty
         (SASRec and EASE alone, which is what decides: --config.augment.teachers="('sasrec','ease')")
Data: atomic files (beauty.inter, beauty.item); or, downloaded, as in configs/teachers/beauty.py.
Hardware and time: SASRec alone with three seeds and one control two and a half hours on 2 CPU cores that were shared with other
work; SASRec and EASE with one seed and one control 100 minutes, of which a third is ranking, with the weights of hybrids.
Expect, `full` NDCG@10, mean and standard deviation of three seeds (docs/results/p2rec_encoder.md): SASRec 0.0585 +- 0.0004,
augmented 0.0626 +- 0.0002, random vectors 0.0552 +- 0.0003; Markov 0.054, TF-IDF beside SASRec 0.065. One seed: EASE 0.046,
augmented 0.062, CEASE with the titles' words 0.066; SASRec + Markov + CEASE + TF-IDF 0.0734, with the augmented SASRec 0.0744.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "minilm_office.py")
    beauty = base_config(__file__, "beauty.py")
    config.teacher, config.evaluate = beauty.teacher, beauty.evaluate
    config.parse.valid_users = beauty.parse.valid_users
    # Half of the users have six items or fewer, one has 204: batches of like lengths need about a third of the padded tokens.
    config.parse.group_by_length = 16
    return config
