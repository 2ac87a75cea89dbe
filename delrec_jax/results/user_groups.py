"""Groups of test users for cold start: by the length of their history, and by how often their target occurs in training.

The bins are fixed, so that the groups of different corpora and splits can be compared.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool

from delrec_jax.errors import UserError
from delrec_jax.evaluation.parquet_tables import read_parquet
from delrec_jax.evaluation.user_facts import USERS, read_user_facts

HISTORY, COUNT = "history", "count"

_BINS = {  # name of the groups -> column, and the lowest value of each bin
    HISTORY: ("history", (0, 1, 5, 10, 20, 50)),
    COUNT: ("target_count", (0, 1, 5, 10, 50)),
}


def user_groups(
    folder: Path, *, users: np.ndarray | None = None
) -> Mapping[str, Bool[np.ndarray, "U"]] | None:
    """The groups of the users of a folder of records, by name, such as `history 5-9` and `count 0`.

    Args:
      folder: that of the rank records, with `users.parquet` beside them.
      users: the users' indices in the wanted order; None = ascending.

    Returns:
      Name -> which users belong to it, histories first, each in ascending order; groups without a user are left out.
      Histories of no item are a group of their own, `history 0`, where there are any. None if the evaluation did not record
      what the groups are made of.

    Raises:
      UserError: the file is broken, or does not know one of the users of the records.
    """
    facts = read_user_facts(folder)
    if facts is None:
        return None
    if users is None:
        users = read_parquet(folder / "records.parquet")["user"].unique().sort().to_numpy()
    asked = pl.DataFrame({"user": np.asarray(users, np.int32)})
    facts = asked.join(facts, on="user", how="left", maintain_order="left")
    unknown = facts.filter(pl.col("history").is_null())["user"]
    if len(unknown):
        raise UserError(
            f"{folder / USERS}: user {unknown[0]} of the records is missing ({len(unknown)} users in all); evaluate the "
            "workdir again into an empty records folder"
        )
    found = {}
    for kind, (column, lowest) in _BINS.items():
        values = facts[column].to_numpy()
        for low, after in zip(lowest, (*lowest[1:], None), strict=True):
            inside = (values >= low) & (True if after is None else values < after)
            if inside.any():
                found[f"{kind} {_bin(low, after)}"] = inside
    return found


def _bin(low: int, after: int | None) -> str:
    """The name of the values from `low` to before `after`."""
    if after is None:
        return f"{low}+"
    return str(low) if after == low + 1 else f"{low}-{after - 1}"
