"""Many machines: Ray spreads tasks over them, hands out their processors and GPUs, and runs again what a node lost.

Needs the extra `cluster`. Nothing here is imported by a command that is not told `--on` or `launch`.
"""

from customcnn.cluster.ray_cluster import Cluster, connect, parse_place
from customcnn.cluster.shared_folders import require_shared

__all__ = ["Cluster", "connect", "parse_place", "require_shared"]
