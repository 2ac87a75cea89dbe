"""What is in `launch/`, and how its scripts are run in tests: with recording stand-ins first on PATH."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
FILES = sorted(path for path in LAUNCH.rglob("*") if path.is_file())
LAUNCHERS = [path for path in FILES if path.suffix != ".md"]
SCRIPTS = [path for path in LAUNCHERS if path.read_text().startswith("#!")]
PATIENCE = 240  # seconds until a program counts as hanging, on a busy machine

STAND_IN = """#!{python}
import json, os, signal, subprocess, sys, time

name = os.path.basename(sys.argv[0])
text = sys.stdin.read() if name == "kubectl" else ""
call = {{"name": name, "arguments": sys.argv[1:], "text": text, "environment": dict(os.environ)}}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # before anyone can know of the call
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(call) + "\\n")
print(name, "speaks", flush=True)
if "WAIT" in os.environ and name in os.environ["WAIT"].split():
    time.sleep(600)  # a test ends it by a signal
if name == "gcloud":
    command = next(a for a in sys.argv if a.startswith("--command=")).removeprefix("--command=")
    sys.exit(subprocess.call(["bash", "-c", command], stdin=subprocess.DEVNULL))
sys.exit(int(os.environ.get("CODE", 0)) if name in ("delrec", "srun") else 0)
"""


def label(path: Path) -> str:
    """The path inside `launch/`, for test names."""
    return path.relative_to(LAUNCH).as_posix()


class Room:
    """A folder with stand-ins for the programs that launchers call, and the calls that they got."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("delrec", "srun", "scontrol", "gcloud", "kubectl"):
            self.stand_in(self.bin / name)

    def stand_in(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN.format(python=sys.executable))
        path.chmod(0o755)
        return path

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "CALLS": str(self.folder / "calls"),
            **settings,
        }

    def start(
        self, script: Path, settings: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> subprocess.Popen:
        return subprocess.Popen(
            [str(script), *arguments],
            env=self.environment(settings),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
        )

    def run(
        self, script: Path, settings: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> subprocess.CompletedProcess:
        process = self.start(script, settings, arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess([str(script)], process.returncode, out, err)

    def calls(self, name: str | None = None) -> list[dict]:
        """The calls so far, in order; with a name, those of one program."""
        if not (self.folder / "calls").exists():
            return []
        lines = (self.folder / "calls").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [call for call in found if name in (None, call["name"])]


def manifest(kind: str, **settings: str) -> str:
    """What `submit.sh` would submit.

    Raises:
      AssertionError: it refuses, with its message.
    """
    needed = {
        "NAME": "trial",
        "IMAGE": "registry.example/delrec:1",
        "CLAIM": "shared",
        "CONFIG": "configs/storefront.py",
        "WORKDIR": "/runs/trial",
    }
    environment = {"PATH": os.environ["PATH"], "PRINT": "1", **needed, **settings}
    done = subprocess.run(
        [str(LAUNCH / "gke/submit.sh"), kind], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
