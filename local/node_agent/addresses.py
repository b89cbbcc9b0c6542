"""Loopback addresses for pods: one each, the same for a pod's whole life, also over restarts of the agent.

Each cluster has a network 127.<10 + index>.0.0/16, so that pods of all clusters on the machine can listen on the same
port. Nothing has to be configured for it on Linux: the whole of 127.0.0.0/8 is local.
"""

import json
import os
from pathlib import Path

# 127.0.x.y to 127.9.x.y stay with other users of loopback (systemd-resolved sits on 127.0.0.53).
_FIRST_NETWORK = 10
_NETWORKS = 240
# Host part of the first pod; 0.1 is what people type for "some loopback address".
_FIRST_HOST = 2
_LAST_HOST = 0xFFFE


class Addresses:
    """The table pod uid → address of one cluster, kept in a file. Not thread-safe."""

    def __init__(self, path: Path, index: int) -> None:
        """`index` is the cluster's number. Raises ValueError where there is no network of that number."""
        if not 0 <= index < _NETWORKS:
            raise ValueError(f"pod network: the cluster's index must be 0 to {_NETWORKS - 1}, got: `{index}`")
        self._path = path
        self._prefix = f"127.{_FIRST_NETWORK + index}."
        self._hosts: dict[str, int] = {}
        self._next = _FIRST_HOST
        try:
            saved = json.loads(path.read_text())
            self._hosts, self._next = dict(saved["hosts"]), int(saved["next"])
        except (OSError, ValueError, KeyError, TypeError):
            # No file yet, or half of one after a full disk: running pods are given new addresses with their restart.
            pass

    def of(self, uid: str) -> str:
        """The pod's address, allocated at the first call. Raises RuntimeError when all are taken."""
        if uid not in self._hosts:
            self._hosts[uid] = self._allocate()
            self._save()
        host = self._hosts[uid]
        return f"{self._prefix}{host >> 8}.{host & 0xFF}"

    def release(self, uid: str) -> None:
        if self._hosts.pop(uid, None) is not None:
            self._save()

    def keep_only(self, uids: set[str]) -> None:
        """Forgets pods that went while no agent ran."""
        gone = set(self._hosts) - uids
        for uid in gone:
            del self._hosts[uid]
        if gone:
            self._save()

    def _allocate(self) -> int:
        # Onward, not the lowest free one: a proxy that has not heard yet that a pod went must not reach another model
        # under its address.
        taken = set(self._hosts.values())
        for _ in range(_LAST_HOST - _FIRST_HOST + 1):
            host = self._next
            self._next = host + 1 if host < _LAST_HOST else _FIRST_HOST
            if host not in taken and host & 0xFF not in (0, 0xFF):
                return host
        raise RuntimeError(f"pod network: all addresses of {self._prefix}0.0/16 are taken")

    def _save(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"next": self._next, "hosts": self._hosts}))
        temporary.replace(self._path)
