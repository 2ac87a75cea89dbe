"""What a study of cold start asks of every test user, beside the rank records: `users.parquet`.

The records' own schema is left alone, so that workdirs of earlier versions stay readable; they have no such file.
"""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from delrec_jax.evaluation.parquet_tables import (
    Schema,
    check_schema,
    ordered,
    read_parquet,
    refuse,
    write_parquet,
)

USERS = "users.parquet"

USER_SCHEMA: Schema = {
    "user": pl.Int32,  # index, as in the rank records
    "history": pl.Int32,  # interactions that are known before the test item
    "target_count": pl.Int64,  # interactions of the target in the training part
}


def write_user_facts(
    folder: Path,
    *,
    users: Int[np.ndarray, "U"],
    history: Int[np.ndarray, "U"],
    target_count: Int[np.ndarray, "U"],
) -> None:
    """Writes the file, completely or not at all.

    Args:
      folder: that of the rank records.
      users: user indices.
      history: the number of each user's known interactions before the test item.
      target_count: the interactions of each user's test item in the training part.

    Raises:
      UserError: a user twice, or a negative number.
    """
    table = pl.DataFrame({"user": users, "history": history, "target_count": target_count})
    path = folder / USERS
    write_parquet(path, _checked(ordered(table, USER_SCHEMA), where=str(path)))


def read_user_facts(folder: Path) -> pl.DataFrame | None:
    """The table of a folder of records; None if that evaluation did not record it.

    Raises:
      UserError: the file is broken.
    """
    path = folder / USERS
    return _checked(read_parquet(path), where=str(path)) if path.is_file() else None


def _checked(table: pl.DataFrame, *, where: str) -> pl.DataFrame:
    table = check_schema(table, USER_SCHEMA, where=where)
    refuse(table, "user", pl.col("user").is_duplicated(), where, "one row per user")
    for name in ("history", "target_count"):
        refuse(table, name, pl.col(name) < 0, where, "0 or more")
    return table
