"""DELRec's published settings on Steam; `reference.py` says what they are, what differs, and the arguments.

Command: delrec run --config=configs/delrec/steam.py --config.data.path=PATH/TO/steam --workdir=runs/steam_xl
         (or :small, :base, :large, :xxl; :small,sequence for the verbalizer that Flan-T5 was trained for)
Data: atomic files; or, downloaded, --config.data.corpus=steam --config.data.edition=ucsd (or llara: its validation and test
      windows alone).
NOT TRAINED BY US: the weights could not be downloaded where this was written.
Differs besides: games and users with fewer than 3 interactions are left out (data.k_core); the program's filter is not known.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config(argument: str | None = None) -> ConfigDict:
    config = base_config(__file__, "reference.py", argument=argument)
    config.data.update(domain="games", k_core=3)
    return config
