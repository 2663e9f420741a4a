"""Jobs of several real processes on loopback, as `customcnn train --hosts` makes them."""

import os
import secrets
import shlex
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

LIMIT = 240
"""Seconds after which a process of a job counts as hanging."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(**variables):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("KERAS_", "XLA_", "RAY_"))}
    return {**kept, "KERAS_BACKEND": "jax", **variables}


NAMESPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@cache
def may_be_apart():
    """Tell whether this machine lets us have a network and process numbers of our own."""
    try:
        return subprocess.run([*NAMESPACES, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0
    except OSError:
        return False


def apart(words):
    """Return a command line that runs in a network of its own, where the machine allows: loopback, and nothing else.

    Whatever it starts ends with it, and nothing else on the machine meets it.
    """
    if not may_be_apart():
        return [*map(str, words)]
    return [*NAMESPACES, "sh", "-c", f"ip link set lo up && exec {shlex.join(map(str, words))}"]


SECOND = "127.0.0.2"
"""The address of the second node of `two_nodes`."""


@contextmanager
def two_nodes(processors):
    """Start a Ray cluster of two nodes on loopback; give it and the second. Ray is not imported before."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    from ray.cluster_utils import Cluster

    node = {"num_cpus": processors, "include_dashboard": False, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.1"})
    try:
        yield cluster, cluster.add_node(**node, node_ip_address=SECOND)
    finally:
        cluster.shutdown()


def alone(*words, **variables):
    """Run one command of its own process on JAX; return what it left."""
    command = [sys.executable, "-m", "customcnn", *map(str, words)]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=LIMIT)


def start(*words, world=2, port=None, own=lambda rank: (), **variables):
    """Start the processes of one job; `own` gives the words of one rank alone."""
    pytest.importorskip("jax")
    port = port or free_port()
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "customcnn", *map(str, words), *map(str, own(rank))),
                *("--hosts", f"127.0.0.1:{port}", "--rank", str(rank), "--world", str(world)),
            ],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def finish(processes):
    """Wait for all; return status, output and errors of each. One that hangs fails the test, and none is left."""
    try:
        return [(process.wait(LIMIT), *process.communicate()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def epochs(run: Path):
    """Return how many epochs have ended."""
    return max(0, len((run / "history.csv").read_text().splitlines()) - 1) if (run / "history.csv").is_file() else 0
