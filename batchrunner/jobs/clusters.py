"""Which cluster a job runs in, and whether that one is still there."""

from __future__ import annotations

import socket

from batchrunner.jobs.connection import is_connected, is_lost_client, is_ray_client
from batchrunner.jobs.entries import Cluster

_CONNECT_SECONDS = 1.0


def cluster_here(registry: str) -> Cluster:
    """Return the cluster of this process."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    address: str = ray.get_runtime_context().gcs_address
    return Cluster((heads or [nodes[0]["NodeID"]])[0], address, registry)


def cluster_is_gone() -> bool:
    """Tell whether the cluster of this process does not listen any more.

    Through `ray://` the head's client port stands for all of it.
    """
    import ray

    if is_ray_client():
        return is_lost_client()
    if not is_connected():
        return False
    return not _is_listening(ray.get_runtime_context().gcs_address)


def is_gone(cluster: Cluster, *, here: Cluster) -> bool:
    """Tell whether nobody looks after the jobs of *cluster* any more.

    A cluster that was started anew has another head. Of any other cluster we know its address
    only: it is there as long as somebody listens. In our own it is the registry that counts.
    """
    if cluster.id == here.id:
        return cluster.registry != here.registry and not _has_actor(cluster.registry)
    return cluster.address == here.address or not _is_listening(cluster.address)


def _has_actor(registry: str) -> bool:
    import ray

    namespace, _, name = registry.partition("/")
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return False
    return True


def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True
