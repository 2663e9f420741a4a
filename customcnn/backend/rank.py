"""The place of this process among those that train together: from the command line, or from whoever started it.

Launchers tell every process its number in variables of the environment:

    torchrun      RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK, LOCAL_WORLD_SIZE
    Open MPI      OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_LOCAL_RANK, OMPI_COMM_WORLD_LOCAL_SIZE
    Slurm         SLURM_PROCID, SLURM_NTASKS, SLURM_STEP_NODELIST, SLURM_JOB_ID, SLURM_LOCALID
    Kubernetes    JOB_COMPLETION_INDEX, of an indexed job
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from customcnn.errors import CustomCNNError, show

FROM_ENVIRONMENT = "env"
"""What a user gives for the address where the environment has it."""

LAST_PORTS = 4096
"""A Slurm job's port is one of so many last ones, by its number: jobs that share a host seldom meet."""


@dataclass(frozen=True)
class Rank:
    """One process of several that train one network.

    Attributes:
        address: HOST:PORT of rank 0, where all meet.
        number: of this process, from 0.
        world: how many there are.
        local: of this process among those of its host, from 0, where several share the host's GPUs; None where it may
            use every GPU that it sees.
    """

    address: str
    number: int
    world: int
    local: int | None = None


def find_rank(
    hosts: str | None, rank: int | None = None, world: int | None = None, environ: Mapping[str, str] = os.environ
) -> Rank | None:
    """Return this process's place; None where it trains alone.

    Args:
        hosts: HOST:PORT of rank 0, or "env"; None for no others.
        rank: its number; None to read it from the environment.
        world: how many there are; None to read it from the environment.
        environ: of the process.

    Raises:
        CustomCNNError: something is missing or out of range, or the address is none.
    """
    if hosts is None:
        if rank is not None or world is not None:
            raise CustomCNNError(
                "--rank and --world say which of several processes this is. Received: no --hosts beside them. "
                "Give --hosts HOST:PORT, the address of rank 0, or --hosts env."
            )
        return None
    told = _told(environ)
    number = told.get("number") if rank is None else rank
    total = told.get("world") if world is None else world
    for value, flag in ((number, "--rank"), (total, "--world")):
        if value is None:
            raise CustomCNNError(
                f"{flag} is given, or told by torchrun, Open MPI, Slurm or Kubernetes. Received: neither. Give {flag}."
            )
    assert number is not None and total is not None
    if total < 1 or not 0 <= number < total:
        raise CustomCNNError(
            f"Ranks are numbered from 0 to --world less 1. Received: rank {number} of {total}. Number them so."
        )
    address = _address(environ) if hosts == FROM_ENVIRONMENT else hosts
    if not address or not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/:]+):\d{1,5}", address):
        found = "no address in the environment" if not address else show(address)
        raise CustomCNNError(f"--hosts is HOST:PORT of rank 0. Received: {found}. Example: --hosts 10.0.0.5:7654.")
    local = told.get("local") if (told.get("beside") or 1) > 1 and _sees_several(environ) else None
    return Rank(address, number, total, local)


def _told(environ: Mapping[str, str]) -> dict[str, int | None]:
    """Return number, world, local and beside (how many share the host), from the nearest launcher."""
    names = (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
        ("JOB_COMPLETION_INDEX", "", "", ""),
    )
    for some in names:
        if some[0] in environ:
            keys = ("number", "world", "local", "beside")
            return {key: _whole(environ, name) for key, name in zip(keys, some, strict=True)}
    return {}


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if text and not text.isdecimal():
        raise CustomCNNError(
            f"{name} is a whole number. Received: {show(text)} in the environment. Give --rank and --world."
        )
    return int(text) if text else None


def _address(environ: Mapping[str, str]) -> str | None:
    port = _whole(environ, "MASTER_PORT")
    if port is not None and (host := environ.get("MASTER_ADDR")):
        # At the port that it names torchrun itself listens.
        port += environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if nodes and (job := _whole(environ, "SLURM_JOB_ID")) is not None:
        return f"{first_node(nodes)}:{65536 - LAST_PORTS + job % LAST_PORTS}"
    return None


def first_node(nodes: str) -> str:
    """Return the first host of a list as Slurm writes it: "a[03-05,9],b1" begins with "a03"."""
    match = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^\[,]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


def _sees_several(environ: Mapping[str, str]) -> bool:
    # A launcher that hands every process one GPU has hidden the others from it.
    return len(environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")) > 1
