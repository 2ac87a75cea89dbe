"""DELRec's published settings on MovieLens-100K; `reference.py` says what they are, what differs, and the arguments.

Command: delrec run --config=configs/delrec/ml100k.py --config.data.path=PATH/TO/ml-100k --workdir=runs/ml100k_xl
         (or :small, :base, :large, :xxl; :small,sequence for the verbalizer that Flan-T5 was trained for)
         delrec plan --config=configs/delrec/ml100k.py --devices=1 --chip=h100
Data: RecBole's atomic files (ml-100k.inter, ml-100k.item); or, downloaded from GroupLens, --config.data.corpus=movielens
      --config.data.edition=100k.
NOT TRAINED BY US: the weights could not be downloaded where this was written.
Differs besides: the split by users leaves about 95 test users, so that HR@1 has an interval of +/- 0.10; the literature's split
has all 943: --config.split.kind=leave_one_out.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config(argument: str | None = None) -> ConfigDict:
    config = base_config(__file__, "reference.py", argument=argument)
    config.data.domain = "movies"
    config.teacher.loop.update(steps=3660, evaluate_every=122, checkpoint_every=610, patience=16)
    return config
