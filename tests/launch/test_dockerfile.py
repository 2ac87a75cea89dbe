"""The Dockerfile without Docker: what it copies is there, what it installs exists, and its shell lines run."""

import fnmatch
import json
import os
import subprocess
import tomllib

import pytest
from launch_files import LAUNCH, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """Instruction and rest of each logical line."""
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if line and not line.startswith("#"))
    logical = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in logical]


def all_of(word: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == word]


def position(word: str, start: str = "") -> int:
    return next(
        i for i, (w, rest) in enumerate(instructions()) if w == word and rest.startswith(start)
    )


def copied() -> list[str]:
    return [source for rest in all_of("COPY") for source in rest.split()[:-1]]


def sent_to_docker(path: str) -> bool:
    """Whether the ignore file lets a path through; the last pattern that fits decides."""
    lines = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    kept = True
    for pattern in (line for line in lines if line and not line.startswith("#")):
        plain = pattern.lstrip("!").removeprefix("**/")
        names = path.split("/") if pattern.startswith("**/") else [path, path.split("/")[0]]
        if any(fnmatch.fnmatch(name, plain) for name in names):
            kept = pattern.startswith("!")
    return kept


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_is_there_and_sent(source):
    assert (ROOT / source).exists()
    assert sent_to_docker(source)


@pytest.mark.parametrize(
    "path",
    [".git/HEAD", ".venv/bin/python", "runs/a/model", "tests/a.py", "delrec_jax/a/__pycache__/b"],
)
def test_the_rest_is_not_sent(path):
    assert not sent_to_docker(path)


def test_what_the_build_backend_reads_is_copied():
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(copied())
    assert {"delrec_jax", "configs"} <= set(copied())


def test_the_python_is_one_that_the_project_takes():
    assert all_of("FROM") == ["python:${PYTHON}-slim"]
    [default] = [rest.split("=")[1] for rest in all_of("ARG") if rest.startswith("PYTHON=")]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert (3, 11) <= tuple(map(int, default.split("."))) < (3, 14)


def test_the_accelerator_is_known_where_it_is_used():
    assert position("FROM") < position("ARG", "ACCELERATOR=cpu") < position("RUN", "case")


def install(tmp_path, accelerator: str) -> subprocess.CompletedProcess:
    """Runs the installing RUN line with a stand-in for Python that prints its arguments."""
    [line] = [rest for rest in all_of("RUN") if "pip install" in rest]
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ACCELERATOR": accelerator}
    return subprocess.run(["/bin/sh", "-c", line], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda", "tpu"])
def test_it_installs_the_project_with_extras_that_exist(tmp_path, accelerator):
    words = install(tmp_path, accelerator).stdout.split()
    assert words[:-1] == ["-m", "pip", "install", "--no-cache-dir", "-e"]
    extras = set(words[-1].removeprefix(".[").removesuffix("]").split(","))
    assert extras <= set(PROJECT["optional-dependencies"])
    assert extras == {"tensorboard"} | ({accelerator} - {"cpu"})


def test_an_unknown_accelerator_ends_the_build(tmp_path):
    done = install(tmp_path, "rocm")
    assert done.returncode == 1 and done.stdout == ""
    assert "ACCELERATOR is 'rocm': use cpu, cuda or tpu" in done.stderr


def test_it_runs_delrec_as_an_ordinary_user():
    assert json.loads(all_of("ENTRYPOINT")[-1]) == ["delrec"]
    assert "delrec" in PROJECT["scripts"]
    [user] = all_of("USER")
    assert user.isdigit() and int(user) > 0
    assert f"--uid {user} " in next(rest for rest in all_of("RUN") if "useradd" in rest)
    installs = [i for i, (word, _) in enumerate(instructions()) if word == "RUN"]
    assert position("USER") > max(installs)
