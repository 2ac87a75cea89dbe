"""A run's directory: which stage depends on what, what is finished, and that results are never mixed.

Every stage has a fingerprint of the settings it reads and of the stages it builds on. A finished stage with the same
fingerprint is skipped, an interrupted one resumes. A workdir of another config is refused, or (on request) the stages that the
change affects are run again; so are those that depend on a file which has changed.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from delrec_jax.config import Experiment, leaf_keys, leaf_values, to_dict
from delrec_jax.distributed import as_main_sees, is_main, on_main, wait_for_all
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, json_hash
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.training.tracking.trackers import Trackers
from delrec_jax.training.watching import Watch
from delrec_jax.workdir import kept_files
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.setting_values import own_parts, value_at
from delrec_jax.workdir.stage_table import STAGES, Stage
from delrec_jax.workdir.workdir_checks import FILES, PLACES, check_own_folders, check_settings

# Increased when a change of the code makes old results of a stage wrong. Fingerprints depend on it; newer markers say it too.
_FORMAT = 5

# The content of stages without named results in workdirs of earlier versions; now it is that of all their files.
_NOTHING = file_hash()

_GOING = {"fingerprint": "", "finished": False}
"""The marker of a stage whose earlier files are being removed."""


class Workspace:
    """One workdir with its experiment."""

    def __init__(
        self,
        workdir: Path,
        experiment: Experiment,
        *,
        update: bool = False,
        read_only: bool = False,
        saved: Callable[[], None] | None = None,
    ):
        """Opens a workdir; writes `config.json`, unless it is `read_only`.

        `saved`, for a folder that is not kept itself, is called when a stage begins or is finished, and for each checkpoint.

        Raises:
          UserError: the workdir belongs to another config and `update` is not set, or it cannot be written.
        """
        self.root = workdir
        self.experiment = experiment
        self.saved = saved
        self.stages = STAGES[experiment.method]
        self._settings = to_dict(experiment)
        self._intact: set[str] = set()  # stages whose files this process has checked or made
        told = {k: v for k, v in leaf_values(self._settings).items() if not k.startswith(PLACES)}
        self.watch = Watch(
            experiment.profile, Trackers(experiment.watch, workdir, told), experiment.hang_after
        )
        path = workdir / "config.json"
        try:
            if path.exists():
                check_settings(path, self._settings, may_change=lambda: update or self._is_fresh())
            if is_main() and not read_only:
                # A copy of a bucket has nobody else's files, and may lack a marker.
                if saved is None:
                    check_own_folders(self.folder(stage) for stage in self.stages)
                workdir.mkdir(parents=True, exist_ok=True)
                write_json(path, self._settings)
        except OSError as error:
            raise UserError(
                f"--workdir={workdir}: cannot be used ({error}); give a folder that you can write to"
            ) from error
        for stage in filter(self.finished, self.stages if read_only else ()):
            self.check_intact(stage)
        wait_for_all()

    def _is_fresh(self) -> bool:
        """Whether there is nothing that other settings would spoil, as where the first stage has failed."""
        first, *others = self.stages
        marked = any(os.path.lexists(self.folder(stage) / kept_files.MARKER) for stage in others)
        return not (marked or self._marker(first).get("finished"))

    def spec(self, stage: str) -> Stage:
        """Returns what a stage of this run's method reads and writes.

        Raises:
          UserError: the method has no such stage.
        """
        if stage not in self.stages:
            others = ", ".join(name for name, stages in STAGES.items() if stage in stages)
            raise UserError(
                f"method={self.experiment.method} has no stage {stage!r}, it has {', '.join(self.stages)}: "
                + (f"set method to one of {others}" if others else "use one of these")
            )
        return self.stages[stage]

    def folder(self, stage: str) -> Path:
        """Returns the folder that a stage writes to."""
        return self.root / self.spec(stage).folder

    def fingerprint(self, stage: str, written_as: int | None = None) -> str:
        """Returns the SHA-256 of everything that a stage's files depend on: settings, and actual results of earlier stages.

        Args:
          stage: its name.
          written_as: an earlier format, to recognize its workdirs; None = this version's.
        """
        needs = self.spec(stage).needs
        before = {name: (self.fingerprint(name, written_as), self.content(name)) for name in needs}
        number = _FORMAT if written_as is None else written_as
        content = {**self._read_by(stage), "format": number, "needs": before}
        return json_hash(content)

    def plan_key(self, stage: str) -> str:
        """Returns the SHA-256 of all settings that a stage's files depend on, known before anything has run.

        Two runs on the same source files whose keys of a stage are equal would make the same files in it.
        """
        spec = self.spec(stage)
        content = {
            **self._read_by(stage),
            "judged_by": self._judges(stage),
            "files": {
                key: value_at(self._settings, key)
                for key in FILES
                if key.split(".")[0] in spec.settings
            },
            "needs": {name: self.plan_key(name) for name in spec.needs},
        }
        return json_hash(content)

    def _read_by(self, stage: str) -> dict[str, Any]:
        """What a stage itself reads of the settings and of the user's own files."""
        keys = self._keys(stage)
        settings = {key: value_at(self._settings, key) for key in keys}
        own = own_parts([value_at(self._settings, key.removesuffix(".*")) for key in keys])
        unread = [*PLACES]
        if self.experiment.data.corpus != "storefront":
            unread.append("data.storefront")
        for section, _, key in (place.partition(".") for place in unread):
            if key and section in settings:
                settings[section] = {k: v for k, v in settings[section].items() if k != key}
        if own:
            settings["sources"] = own
        return {"format": _FORMAT, "stage": stage, "settings": settings}

    def _keys(self, stage: str) -> tuple[str, ...]:
        return keys_read(self.spec(stage), self.experiment)

    def identity(self, stage: str) -> dict[str, Any]:
        """Returns what a stage's checkpoints depend on, by key: settings, and the results of earlier stages."""
        facts: dict[str, Any] = {}
        for section in self._keys(stage):
            value = value_at(self._settings, section)
            keys = leaf_keys(value, f"{section}.") if isinstance(value, dict) else [section]
            facts |= {
                key: value_at(self._settings, key) for key in keys if not key.startswith(PLACES)
            }
            own = own_parts(value_at(self._settings, section.removesuffix(".*")))
            facts |= {f"file of {name}": digest for name, digest in own.items()}
        for name in self.spec(stage).needs:
            facts |= self.identity(name)
            if (content := self.content(name)) != _NOTHING:
                facts[f"results of {name} (SHA-256)"] = content
        return facts

    def finished(self, stage: str) -> bool:
        """Returns whether a stage's results exist and belong to this config."""
        return (
            bool(self._marker(stage).get("finished"))
            and self._is_current(stage)
            and all((self.folder(stage) / name).exists() for name in self.spec(stage).results)
        )

    def outdated(self, stage: str) -> bool:
        """Returns whether a stage's finished results belong to other settings, files or earlier results."""
        return bool(self._marker(stage).get("finished")) and not self._is_current(stage)

    def earlier_format(self, stage: str) -> str:
        """Returns, in words, that a stage's results are of an earlier format; "" if not so far as is known."""
        if not self.outdated(stage):
            return ""
        made = self._marker(stage)["fingerprint"]  # a marker may be older than the number in it
        known = (n for n in range(1, _FORMAT) if made == self.fingerprint(stage, n))
        found = self._marker(stage).get("format", next(known, _FORMAT))
        here = f"its results are of format {found}, and this version of delrec_jax has {_FORMAT}"
        return here if found < _FORMAT else ""

    def _is_current(self, stage: str) -> bool:
        marker = self._marker(stage)
        found = (marker["fingerprint"], marker.get("judged_by", {}))
        return found == (self.fingerprint(stage), self._judges(stage))

    def _judges(self, stage: str) -> dict[str, Any]:
        return {key: value_at(self._settings, key) for key in self.spec(stage).judged_by}

    def content(self, stage: str) -> str:
        """Returns what identifies a finished stage's results, such as the teacher's checkpoint; "" until it is finished."""
        content: str = self._marker(stage).get("content", "")
        return content

    def begin(self, stage: str) -> Path:
        """Prepares a stage's folder: keeps what an interrupted run with the same settings left, removes everything else.

        Raises:
          UserError: a stage that this one needs is not finished.
        """
        for name in self.spec(stage).needs:
            if not as_main_sees(partial(self.finished, name)):
                raise UserError(
                    f"{stage} needs the results of {name}, which are not in {self.root}: run `delrec {name}` with the same "
                    "flags first, or `delrec run` for all stages"
                )
            self.check_intact(name)
        wait_for_all()  # until every process has looked at what is about to change
        on_main(lambda: self._clear(stage))
        if self.saved is not None:
            self.saved()
        return self.folder(stage)

    def check_intact(self, stage: str) -> None:
        """Checks the files of a finished stage, and of those that it needs, once per process.

        Raises:
          UserError: one is missing, damaged or changed.
        """
        if stage in self._intact or not is_main():
            return
        for name in self.spec(stage).needs:
            self.check_intact(name)
        kept_files.check(self.folder(stage), self._marker(stage).get("files", {}), stage=stage)
        self._intact.add(stage)

    def _clear(self, stage: str) -> None:
        folder = self.folder(stage)
        if folder.exists() and self._marker(stage).get("fingerprint") != self.fingerprint(stage):
            # A marker of nothing first: what is left is not finished, and still known as this run's.
            write_json(folder / kept_files.MARKER, kept_files.sealed(_GOING))
            for old in folder.iterdir():  # the folder itself may be a link to one that runs share
                if old.name != kept_files.MARKER:
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.rglob(".*.partial-*"):  # by a process that was killed while writing
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._mark(stage)

    def finish(self, stage: str) -> None:
        """Marks a stage as finished, with the hash of its results."""

        def mark() -> None:
            results = [self.folder(stage) / name for name in self.spec(stage).results]
            files = kept_files.hashes(self.folder(stage))
            self._mark(stage, files, content=file_hash(*results) if results else json_hash(files))
            self._intact.add(stage)

        on_main(mark)
        if self.saved is not None:
            self.saved()

    def _marker(self, stage: str) -> dict[str, Any]:
        path = self.folder(stage) / kept_files.MARKER
        there = os.path.lexists(path)
        # Within a study the folder is a link, and to delete that would leave what it leads to.
        remedy = f"delete the folder {path.parent.resolve()}, and the stage is run again"
        found = read_json(path, remedy=remedy) if there else {}
        return kept_files.checked(path, found, newest=_FORMAT) if there else {}

    def _mark(
        self, stage: str, files: Mapping[str, str] | None = None, *, content: str = ""
    ) -> None:
        """Writes the marker: of a finished stage, if its files are given."""
        marker = {
            "fingerprint": self.fingerprint(stage),
            "judged_by": self._judges(stage),
            "finished": files is not None,
            "content": content,
            "format": _FORMAT,
            "files": files or {},
        }
        write_json(self.folder(stage) / kept_files.MARKER, kept_files.sealed(marker))


def keys_read(stage: Stage, experiment: Experiment) -> tuple[str, ...]:
    """Returns the parts of the config that a stage reads under this config."""
    lm = experiment.lm
    coded = not lm.weights and find_verbalizer(lm.verbalizer).lists_codes
    return (*stage.settings, *(stage.coded if coded else ()))
