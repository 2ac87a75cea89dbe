"""A study of the tiny storefront that needs no language model, written to a file, and its commands."""

import os
import subprocess
import sys
from pathlib import Path

from compiling import QUICK_ENVIRONMENT
from ml_collections import ConfigDict
from tiny_storefront import FEW_BASELINES, ROOT, TINY

from delrec_jax.command_line import overridden
from delrec_jax.config import read_config

WIDTHS = f'''
from delrec_jax.studies.study import Arm, Study

BASE = "{ROOT / "configs" / "storefront.py"}"

def get_study(base):
    return Study(
        question="Does the width of the teacher matter?",
        arms=(
            Arm("narrow"),
            Arm("wide", {{"teacher.sasrec.width": 32}}, at={{"width": 32}}),
            Arm("narrow_again", {{"baselines.hybrids": ("teacher+tfidf",)}}),
        ),
        reference="narrow",
        seeds=(0, 1),
        systems=("teacher",),
        context=("popularity",),
        command="baseline",
        by_users=True,
    )
'''
"""`narrow_again` trains nothing: its teacher is that of `narrow`."""


def study_file(folder: Path, text: str = WIDTHS) -> Path:
    """The file, in a folder."""
    path = folder / "study.py"
    path.write_text(text)
    return path


def tiny_base(path: Path = ROOT / "configs" / "storefront.py", *flags: str) -> ConfigDict:
    """A config with overrides, by default that of the tiny storefront."""
    return overridden(read_config(path), list(flags or (*TINY, *FEW_BASELINES)))


def start(path: Path, workdir: Path, *flags: str, tiny: tuple[str, ...] = TINY) -> subprocess.Popen:
    """`delrec study` in a process of its own, with its output in `.stderr`."""
    command = [sys.executable, "-m", "delrec_jax.cli", "study", f"--config={path}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *tiny, *FEW_BASELINES, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | QUICK_ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
    )
