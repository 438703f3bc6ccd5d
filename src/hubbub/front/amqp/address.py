"""Addresses of nodes and audiences of tokens (AMQP reference 2.2, 3.1). Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

ADDRESS_CHARS_MAX = 2048


class Node(NamedTuple):
    """What an address names. `path` is lower case, `spelled` as the client wrote it."""

    kind: str
    """cbs, management, operations, partition, publisher, consumer or entity."""
    path: str
    spelled: str
    entity: str = ""
    """The hub, or the whole path of another entity."""
    part: str = ""
    """Partition or publisher."""
    group: str = ""


def path_of(address: Any) -> str:
    """An address without scheme, authority and outer slashes; "" for what is none."""
    if not isinstance(address, str) or len(address) > ADDRESS_CHARS_MAX:
        return ""
    _, scheme, rest = address.rpartition("://")
    if scheme:
        _, _, address = rest.partition("/")
    return str(address).strip("/")


def node_of(address: Any) -> Node:
    spelled = path_of(address)
    path = spelled.lower()
    if path == "$cbs":
        return Node("cbs", path, spelled)
    if path == "$management":
        return Node("management", path, spelled)
    if path.endswith("/$management"):
        return Node("operations", path, spelled, path.removesuffix("/$management"))
    parts, lower = spelled.split("/"), path.split("/")
    if len(parts) >= 3 and lower[-2] in ("partitions", "publishers"):
        if len(parts) >= 5 and lower[-2] == "partitions" and lower[-4] == "consumergroups":
            return Node("consumer", path, spelled, "/".join(lower[:-4]), parts[-1], parts[-3])
        kind = "partition" if lower[-2] == "partitions" else "publisher"
        return Node(kind, path, spelled, "/".join(lower[:-2]), parts[-1])
    return Node("entity", path, spelled, path)
