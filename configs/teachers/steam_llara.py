"""Conventional recommenders on Steam in LLaRA's protocol: its own windows, 20 candidates, HR@1 (`sampled-20`).

Command: delrec baseline --config=configs/teachers/steam_llara.py --config.data.manual_dir=PATH/TO/steam
         --workdir=runs/steam_llara
Data: Train_data.df, Val_data.df, Test_data.df and id2name.txt of LLaRA (Liao et al., SIGIR 2024), gzipped or not; without
      `manual_dir` they are downloaded.
Expect: nothing is claimed. LLaRA's training windows were not at hand where this was written, so no figure of this config
      exists; it is tested on generated frames. A training window is one user here; windows of one person overlap, as in LLaRA.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "small.py")
    config.data.update(corpus="steam", edition="llara", domain="games")
    config.data.update(min_length=2, repeats="keep")  # windows stay as they are
    config.split.kind = "given"
    config.candidates.num = 20
    teacher = config.teacher
    for network in (teacher.sasrec, teacher.gru4rec, teacher.caser):
        network.max_length = 10  # LLaRA's windows
    teacher.batch_size = 64  # rows of 10 labels
    return config
