"""A Ray cluster on this machine: launch a job on it and kill something in the middle, or nothing.

Used by test_launch.py: `launch_and_kill rank|node|command|nothing RUN CUSTOMCNN-ARGUMENTS...`. It waits until two
epochs have ended, kills a process of the job, the node that it is on, or the command, and lets the job end, after
the last with --resume. Its last line is the JSON of what was there at the end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.jobs import epochs, two_nodes

GONE_WITHIN = 30


def main(kill: str, run: Path, line: list[str]) -> None:
    with two_nodes(2) as (cluster, second):
        line = [sys.executable, "-m", "customcnn", "launch", "--nodes", "2", "--on", cluster.address, "--", *line]
        command = start(line)
        if kill != "nothing":
            while epochs(run) < 2:
                if command.poll() is not None:
                    raise SystemExit(f"the command ended too soon: {command.communicate()}")
                time.sleep(0.02)
        before = ranks(run)
        if kill == "rank":
            os.kill(before[0], signal.SIGKILL)
        if kill == "node":
            cluster.remove_node(second, allow_graceful=False)
        if kill == "command":
            command.kill()
            command.communicate()
            until = time.monotonic() + GONE_WITHIN
            while ranks(run):
                if time.monotonic() > until:
                    raise SystemExit("the job lives on without its command")
                time.sleep(0.1)
            command = start([*line, "--resume"])
        printed, told = command.communicate(timeout=500)
        left = len(ranks(run))
        report = {"status": command.returncode, "printed": printed, "told": told, "ranks": len(before), "left": left}
        print(json.dumps(report))


def start(line: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ranks(run: Path) -> list[int]:
    """Return the numbers of the processes that train this run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        if b"customcnn.cluster.rank_main" in words and os.fsencode(run) in words:
            found.append(int(entry.name))
    return sorted(found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
