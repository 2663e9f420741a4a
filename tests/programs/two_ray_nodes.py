"""A Ray cluster of two nodes on this machine: run a command on it and kill something in the middle.

Used by test_remote_trainings.py: `two_ray_nodes node|driver OUT CUSTOMCNN-ARGUMENTS...`. It waits for the
second node to have ended an epoch of a training, kills the node or the command, and lets the command end, after the
latter with --resume. Its last line is the JSON of what was there at the end.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support.jobs import SECOND, two_nodes


def main(kill: str, out: Path, line: list[str]) -> None:
    with two_nodes(1) as (cluster, second):
        line = [sys.executable, "-m", "customcnn", *line, "--out", str(out), "--on", cluster.address]
        command = start(line)
        killed = wait(command, out)
        if kill == "node":
            cluster.remove_node(second, allow_graceful=False)
        if kill == "driver":
            command.kill()
            command.communicate()
            command = start([*line, "--resume"])
        printed, told = command.communicate(timeout=500)
        print(json.dumps({"status": command.returncode, "printed": printed, "told": told, "killed": killed}))


def start(line: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait(command: "subprocess.Popen[str]", out: Path) -> str:
    """Wait until the second node has ended an epoch; return the name of the training's folder."""
    while command.poll() is None:
        for told in out.glob(".cluster-*/*.jsonl"):
            lines = [json.loads(line) for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")]
            at = [text for what, text in lines if what == "node"]
            ended = [text for what, text in lines if what == "say" and text.startswith("Epoch 1/")]
            if at[-1:] == [SECOND] and ended and not any(text.startswith("Epoch 2/") for _, text in lines):
                return told.stem
        time.sleep(0.01)
    raise SystemExit(f"the command ended too soon: {command.communicate()}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
