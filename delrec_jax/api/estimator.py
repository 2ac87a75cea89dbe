"""`DELRecModel`: fit and recommend on tables, for those who do not write configs."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from delrec_jax.api import runs
from delrec_jax.api.frames import Place, from_frame, given
from delrec_jax.data.corpora.csv_pair import csv_paths, read_csv_pair
from delrec_jax.errors import UserError
from delrec_jax.files import refuse_url, whole
from delrec_jax.serving.recommender import Recommender
from delrec_jax.workdir.session import locked

_TABLES = "tables"  # beside the run's own folders


def _same(new: Path, old: Path) -> bool:
    return old.exists() and new.read_bytes() == old.read_bytes()


class DELRecModel:
    """A recommender that is fitted to a table of interactions and asked by user.

    >>> model = DELRecModel("runs/shop").fit(interactions, items)
    >>> model.recommend(["ann", "bob"], k=10)

    Attributes:
      recommender: the fitted run, for everything else that it can be asked.
    """

    recommender: Recommender

    def __init__(self, workdir: Place, config: str = "minilm/own", **overrides: Any):
        """Chooses how to fit; nothing is read yet.

        Args:
          workdir: the folder that holds the run: an interrupted `fit` resumes from it.
          config: a config file or the name of a ready config, whose data is replaced.
          **overrides: values of the config, as for `load_config`.
        """
        refuse_url(str(workdir), "workdir=")
        self.workdir = given(workdir, "workdir", "the folder that holds the run")
        self._config, self._overrides = config, overrides

    def fit(self, interactions: Any, items: Any, *, update: bool = False) -> "DELRecModel":
        """Prepares the tables, and trains teacher, prompt and adapters.

        Args:
          interactions: a polars or pandas frame of users, items and times (`from_frame`).
          items: a polars or pandas frame of items and titles.
          update: whether a fit to other tables may be replaced.

        Raises:
          UserError: bad tables or settings, or the workdir holds a fit to other tables, or another run is using it.
        """
        data = {"data.corpus": "csv", "data.path": str(self.workdir / _TABLES)}
        config = runs.load_config(self._config, **{**data, **self._overrides})
        with TemporaryDirectory() as folder:
            from_frame(interactions, items, folder)
            _check(folder)  # refused before anything is replaced
            with locked(self.workdir):
                self._keep(Path(folder), update=update)
        self.recommender = runs.run(config, self.workdir, update=update)
        return self

    def _keep(self, folder: Path, *, update: bool) -> None:
        """Moves new tables to where the run reads them, unless the same are there."""
        place = self.workdir / _TABLES
        pairs = [(new, place / new.name) for new in csv_paths(str(folder))]
        changed = [(new, old) for new, old in pairs if not _same(new, old)]
        if any(old.exists() for _, old in changed) and not update:
            raise UserError(
                f"{self.workdir} holds a fit to other tables: give another workdir, or fit(..., update=True) to replace it"
            )
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"workdir={self.workdir}: cannot be made ({error}); give another"
            ) from error
        for new, old in changed:
            with whole(old) as partial:
                shutil.copyfile(new, partial)

    def recommend(
        self, users: Sequence[Any], k: int = 10, *, system: str | None = None
    ) -> pl.DataFrame:
        """Returns the best items that each user has not had yet, after all of the user's interactions.

        Args:
          users: ids of users, as in the table that was fitted.
          k: length of the lists.
          system: the system to ask (`recommender.systems`); None = that of the method.

        Returns:
          Columns user (its id as text), rank (from 1), item (its id as text), title, score.

        Raises:
          UserError: nothing was fitted, or a user is unknown or was left out by the rules for data.
        """
        if not hasattr(self, "recommender"):
            raise UserError("nothing was fitted: call fit(interactions, items) first")
        if isinstance(users, str):
            raise UserError(f"users={users!r}: give a list of users")
        known = self.recommender.histories
        named = [str(user) for user in users]
        if missing := [user for user in named if user not in known]:
            raise UserError(
                f"users: {missing[0]!r} has no history: not in the table, or left out because it is short (data.min_length)"
            )
        asked = [known[user] for user in named]
        found = self.recommender.rank_items(asked, k=k, system=system)
        users_of = pl.Series("user", named, dtype=pl.String).gather(found["history"])
        return found.drop("history").insert_column(0, users_of)


def _check(folder: str) -> None:
    """Reads the tables; errors name the frames, not files that are gone when they are read.

    Raises:
      UserError: bad tables.
    """
    try:
        read_csv_pair(*csv_paths(folder))
    except UserError as error:
        said = str(error)
        for path in csv_paths(folder):
            said = said.replace(str(path), f"{path.stem} (as CSV)")
        raise UserError(said) from error
