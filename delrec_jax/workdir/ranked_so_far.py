"""What an evaluation has found so far, one file per system: an evaluation that was interrupted goes on with the next.

FOLDER/so_far/HASH.npz   ranks, best items and times of one system; or the weights that validation chose for a hybrid

FOLDER is that of the stage, which is cleared when anything changes that ranks depend on. The files go when the records are
written. One that cannot be read counts as none: what it held is found again.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from delrec_jax.data.stored_arrays import content_hash, load_arrays, save_arrays
from delrec_jax.distributed import as_main_has, as_main_sees, is_main, on_main
from delrec_jax.errors import UserError
from delrec_jax.evaluation.user_ranks import Ranks
from delrec_jax.files import json_hash
from delrec_jax.training.writers import say
from delrec_jax.workdir.cost import Key
from delrec_jax.workdir.hybrids import Weighted
from delrec_jax.workdir.kept_files import SO_FAR
from delrec_jax.workdir.ranking_passes import Ranked
from delrec_jax.workdir.ranking_times import RankingTimes

_TOLD = "told"  # the one key of the files' header
_FORMAT = 1  # another one makes other files, so that those of earlier versions are not read


class RankedSoFar:
    """The files of one evaluation."""

    def __init__(self, folder: Path | None = None, saved: Callable[[], None] | None = None):
        """Reads nothing yet.

        Args:
          folder: that of the stage; None keeps nothing.
          saved: called after each file, for a folder that is not kept itself.
        """
        self._folder = None if folder is None else folder / SO_FAR
        self._saved = saved
        there = list(self._folder.glob("*.npz")) if self._folder and is_main() else []
        if there:
            say(f"  goes on: {len(there)} results of an interrupted evaluation are there")

    def ranked(self, key: Key, protocols: Iterable[str], rank: Callable[[], Ranked]) -> Ranked:
        """Returns what `rank` returned before the interruption, or else what it returns now.

        Args:
          key: the system.
          protocols: those that it is ranked under, in the order of its records.
          rank: ranks it.
        """
        protocols = list(protocols)
        file = ["ranks", *key, *protocols]
        names = [f"{protocol} {part}" for protocol in protocols for part in ("rank", "ties")]
        found = self._find(file, [*names, *(["best"] if "full" in protocols else [])])
        if found is None:
            made = rank()
            self._keep(file, asdict(made.times), _arrays(made))
            return made
        told, arrays = found
        ranks = {one: Ranks(arrays[f"{one} rank"], arrays[f"{one} ties"]) for one in protocols}
        return Ranked(ranks, arrays.get("best"), RankingTimes(**told))

    def weights(self, key: Key, choose: Callable[[], Weighted]) -> Weighted:
        """Returns the weights that `choose` chose before the interruption, or else now.

        Args:
          key: the hybrid.
          choose: asks all of its systems for the validation users.
        """
        file = ["weights", *key]
        found = self._find(file, [])
        if found is None:
            told = as_main_has(asdict(choose()))
            self._keep(file, told, {})
            return Weighted(**told)
        return Weighted(**found[0])

    def remove(self) -> None:
        """Removes all files; to be called by the main process when the records are written."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _find(
        self, file: list[Any], names: list[str]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        path = self._path(file)
        if path is None or not as_main_sees(path.is_file):
            return None
        try:
            header, arrays, _ = load_arrays(
                path, "part of an evaluation", header=[_TOLD], arrays=names
            )
        except UserError:
            return None
        return header[_TOLD], arrays

    def _keep(
        self, file: list[Any], told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> None:
        path = self._path(file)
        if path is None:
            return
        header = {_TOLD: told}
        digest = content_hash(header, arrays)
        on_main(lambda: save_arrays(path, header, arrays, stated_hash=digest))
        if self._saved is not None:
            self._saved()

    def _path(self, file: list[Any]) -> Path | None:
        return self._folder / f"{json_hash([_FORMAT, *file])[:32]}.npz" if self._folder else None


def _arrays(made: Ranked) -> dict[str, np.ndarray]:
    found = {f"{name} rank": one.rank for name, one in made.ranks.items()}
    found |= {f"{name} ties": one.ties for name, one in made.ranks.items()}
    return found if made.best is None else {**found, "best": made.best}
