"""Whether all nodes of a cluster see the same folders under the same paths."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from customcnn.cluster.ray_cluster import Cluster
from customcnn.errors import CustomCNNError, show
from customcnn.io.remote_path import Folder


def require_shared(cluster: Cluster, sources: Iterable[Folder], targets: Iterable[Folder] = ()) -> None:
    """Look on every node for local folders; addresses are not asked for.

    Args:
        cluster: from `connect`.
        sources: folders that are read.
        targets: folders that are written to, or will be made.

    Raises:
        CustomCNNError: a node has no such folder, or another one of that name.
    """
    for folder in sources:
        if isinstance(folder, Path):
            path = os.path.abspath(folder)
            _refuse(folder, cluster.on_every_node(_names, path), sorted(os.listdir(path)))
    for folder in targets:
        if isinstance(folder, Path):
            above = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
            # A name that no node can have by chance, nor have asked for before: NFS remembers what was not there.
            with tempfile.NamedTemporaryFile(dir=above, prefix=".customcnn-") as probe:
                _refuse(folder, cluster.on_every_node(os.path.exists, probe.name), True)


def _names(path: str) -> list[str] | None:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return None


def _refuse(folder: Path, found: dict[str, object], here: object) -> None:
    for node, there in found.items():
        if there != here:
            raise CustomCNNError(
                f"A folder is the same one on all nodes of --on, under the same path. Received: {show(folder)}, which "
                f"node {node} does not have. Share it between the nodes, or use an address such as s3://bucket/cells."
            )
