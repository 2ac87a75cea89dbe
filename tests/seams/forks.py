"""What a fork does: a config file outside of the package, and runs that are stopped and go on."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_storefront import ROOT, TINY, delrec

from delrec_jax.training.preemption import StopRequest

HERE = Path(__file__).parent


def write_config(folder, *lines):
    """A config file that differs from the storefront's by these lines."""
    path = folder / "fork.py"
    body = "\n".join(f"    {line}" for line in lines)
    path.write_text(
        "from delrec_jax.config import base_config\n\n\n"
        "def get_config():\n"
        f"    config = base_config(__file__, {str(ROOT / 'configs' / 'storefront.py')!r})\n"
        f"{body}\n"
        "    return config\n"
    )
    return f"--config={path}"


def run(command, config, workdir, *flags):
    """A command with the flags of a tiny run."""
    delrec(command, config, f"--workdir={workdir}", *TINY, *flags)


def run_stopped_at(step, monkeypatch, *arguments):
    """A command that is told to end when its first training reaches a step, as by SIGTERM."""
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == step)
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
    assert ended.value.code == 75


def copy_stages(source, target, *names):
    for name in names:
        shutil.copytree(source / name, target / name)


def logged(folder):
    """Rows of a training's metrics after step 0."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][1:]
