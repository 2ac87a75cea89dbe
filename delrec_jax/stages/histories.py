"""`delrec histories`: which histories a run asks its teacher about, for a teacher that exists only as lists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from delrec_jax.config import Experiment
from delrec_jax.data.splits import PARTS
from delrec_jax.delrec.prompt_examples import source_rows
from delrec_jax.delrec.rows import histories_before
from delrec_jax.errors import UserError
from delrec_jax.files import whole
from delrec_jax.teachers.listed import ListedTeacher
from delrec_jax.training.writers import say
from delrec_jax.workdir.prepared import Data, load_data
from delrec_jax.workdir.workspace import Workspace


@dataclass(frozen=True)
class Asked:
    """Histories that one part of a run asks about.

    Attributes:
      part: `train` (stage 1), `valid` or `test` (ranking).
      users: int32 [N].
      lengths: number of the user's first items, [N].
      items: number of unseen items that a list must have.
      key: the setting that says so.
    """

    part: str
    users: np.ndarray
    lengths: np.ndarray
    items: int
    key: str


def asked_histories(experiment: Experiment, data: Data) -> list[Asked]:
    """Returns all histories that the teacher of a run is asked about; those of `train` and `valid` can be the same ones."""
    split = data.split
    rows = source_rows(experiment, split, split.training_users, "teacher")
    ranked = experiment.candidates.rerank
    return [
        Asked("train", rows.users, rows.ends, experiment.distill.top_h, "distill.top_h"),
        *(
            Asked(part, split.users(part), split.history_lengths(part), ranked, "candidates.rerank")
            for part in PARTS
        ),
    ]


def check_lists(teacher: ListedTeacher, experiment: Experiment, data: Data) -> None:
    """Checks that every asked history has a list, and that it is long enough.

    Raises:
      UserError: names the first that is not.
    """
    known = data.split.known_items(data.num_items)
    for asked in asked_histories(experiment, data):
        teacher.top_lists(
            asked.users,
            asked.lengths,
            top_h=asked.items,
            key=asked.key,
            allowed=known if asked.part == "train" else np.ones_like(known),
            seen=histories_before(data.split.interactions, asked.users, asked.lengths),
        )


def histories(ws: Workspace, output: Path) -> None:
    """Writes what another system needs to make the lists.

    histories.csv     user_id,length,items,parts: every asked history (the user's first `length` items), and how many unseen
                      items its list needs at least
    interactions.csv  user_id,position,item_id,part: these items; the other system may train on rows of the part `train`
                      only. No target of the test part is among them.

    Args:
      ws: a workdir whose corpus is prepared.
      output: the folder to write.

    Raises:
      UserError: the corpus is not prepared, or a file of another kind is in the way.
    """
    if not ws.finished("prepare"):
        raise UserError(
            f"histories needs the prepared corpus, which is not in {ws.root}: run `delrec prepare` with the same flags first"
        )
    data = load_data(ws)
    asked = _asked_table(asked_histories(ws.experiment, data))
    rows = _interactions_table(asked, data)
    names = pl.Series(data.split.interactions.user_ids, dtype=pl.String)
    written = {}
    for name, table in (("histories", asked), ("interactions", rows)):
        named = table.with_columns(names.gather(table["user"]).alias("user_id")).drop("user")
        written[output / f"{name}.csv"] = named.select("user_id", pl.exclude("user_id"))
    for path, table in written.items():
        _refuse_others(path, table.columns)
    for path, table in written.items():
        with whole(path) as partial:
            table.write_csv(partial)
    say(
        f"{output}: {len(asked)} histories in histories.csv, their items in interactions.csv; give lists as user_id,length,"
        "item_id,score with teacher.name=lists and teacher.lists=FILE"
    )


def _refuse_others(path: Path, columns: list[str]) -> None:
    """Refuses to replace a file that this command has not written, such as a corpus of the same name."""
    if path.exists():
        with path.open("rb") as file:
            first = file.readline().decode(errors="replace").strip()
        if first != ",".join(columns):
            raise UserError(
                f"--output={path.parent}: {path.name} is there already and was not written by this command: give another folder"
            )


def _asked_table(asked: list[Asked]) -> pl.DataFrame:
    """One row per history: user, length, items, and the parts that ask for it."""
    tables = [
        pl.DataFrame({"user": one.users, "length": one.lengths.astype(np.int64)}).with_columns(
            pl.lit(one.items).alias("items"), pl.lit(one.part).alias("parts")
        )
        for one in asked
    ]
    merged = pl.concat(tables).group_by("user", "length", maintain_order=True)
    found = merged.agg(pl.col("items").max(), pl.col("parts").str.join("+"))
    return found.sort("user", "length")


def _interactions_table(asked: pl.DataFrame, data: Data) -> pl.DataFrame:
    """All items of asked histories and of the training part, oldest first: user, position (from 1), item_id, part."""
    everything, trained = data.split.interactions, data.split.train.lengths
    longest = trained.copy()
    np.maximum.at(longest, asked["user"].to_numpy(), asked["length"].to_numpy())
    user = np.repeat(np.arange(everything.num_users), longest)
    starts = np.cumsum(longest) - longest
    position = np.arange(len(user)) - starts[user]
    item = everything.items[everything.offsets[user] + position]
    ids = pl.Series(data.corpus.catalogue.ids, dtype=pl.String)
    return pl.DataFrame(
        {
            "user": user.astype(np.int32),
            "position": position + 1,
            "item_id": ids.gather(item),
            "part": np.where(position < trained[user], "train", "later"),
        }
    )
