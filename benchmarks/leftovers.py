"""What a run has left in its folder: how far it is, what is being written, hashes of all that must be the same again."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from delrec_jax.training.watching import TIMINGS

SAVES = ("*.orbax-checkpoint-tmp*", ".*.partial-*")  # what is being written
UNLIKE = ("cost.json", "weights_seen.json", "index.html")  # of times, places and dates
ANY_ORDER = ".array_record"  # records whose fields come in any order; what is made of them (split.npz, ...) is compared


def unfinished_saves(workdir: Path) -> set[int]:
    """Inodes of files and checkpoints in progress, or left by an earlier kill."""
    found = set()
    for pattern in SAVES:
        with suppress(FileNotFoundError):  # finished meanwhile
            found |= {path.stat().st_ino for path in workdir.rglob(pattern)}
    return found


def where(workdir: Path) -> dict[str, Any]:
    """The training run in progress (or its stage, if none), and its latest complete checkpoint."""
    stages = [
        marker.parent
        for marker in workdir.glob("*/stage.json")
        if not json.loads(marker.read_text())["finished"]
    ]
    folder = stages[0] if stages else workdir
    runs = [run.parent for run in folder.rglob("checkpoints")]
    runs = [run for run in runs if not (run / "result.safetensors").exists()]
    if not runs:
        return {"run": folder.name if stages else "", "checkpoint": None}
    names = [path.name for path in (runs[0] / "checkpoints").iterdir()]
    steps = [int(name) for name in names if name.isdigit()]
    return {
        "run": str(runs[0].relative_to(workdir)),
        "checkpoint": max(steps, default=None),
    }


def reached(workdir: Path) -> str:
    """How far a run is: its finished stages, results and checkpoints."""
    done = [path for path in workdir.glob("*/stage.json") if '"finished": true' in path.read_text()]
    done += [*workdir.rglob("result.safetensors"), *workdir.rglob("_CHECKPOINT_METADATA")]
    done += workdir.glob("*/*")  # a stage that trains nothing leaves files
    return ", ".join(sorted(str(path.relative_to(workdir)) for path in done))


def digests(workdir: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves behind, by file; logs without what depends on the machine."""
    found = {}
    for file in sorted(workdir.rglob("*")):
        name = file.relative_to(workdir)
        own = "checkpoints" in name.parts or name.name.startswith(".") or name.name in UNLIKE
        if own or ANY_ORDER in name.name or not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
            content = json.dumps(rows).encode()
        if file.name == "stage.json":
            content = json.dumps(_marker(json.loads(content))).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def _marker(marker: dict[str, Any]) -> dict[str, Any]:
    """A stage's marker without the hashes of what is not compared, and without its own."""
    files = {
        name: digest
        for name, digest in marker.get("files", {}).items()
        if Path(name).name not in UNLIKE and ANY_ORDER not in name
    }
    return {key: value for key, value in marker.items() if key != "seal"} | {"files": files}


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Files that differ, or that only one of the runs has."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
