"""Two processes on this machine that run one command."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from compiling import QUICK_ENVIRONMENT
from tiny_storefront import CONFIG, TINY

DEADLINE = 600
HEARTBEAT = 10


def start(stage, workdir, log, *flags, environments=({}, {}), script=None):
    """Both processes of a stage; `environments`: what else each has in its environment; `script`: in place of `delrec`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (sys.executable, script) if script else (Path(sys.executable).with_name("delrec"),)
    both = []
    for number in range(2):
        meeting = (
            f"--config.distributed.coordinator=127.0.0.1:{port}",
            "--config.distributed.num_processes=2",
            f"--config.distributed.process_id={number}",
            f"--config.distributed.heartbeat_seconds={HEARTBEAT}",
        )
        both.append(
            subprocess.Popen(
                [*program, stage, CONFIG, f"--workdir={workdir}", *TINY, *meeting, *flags],
                env={**os.environ, **QUICK_ENVIRONMENT, **environments[number]},
                stderr=(log.with_suffix(f".{number}")).open("w"),
            )
        )
    return both


def said(log, number):
    return log.with_suffix(f".{number}").read_text()
