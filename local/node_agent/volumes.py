"""Volumes of a pod as folders of the host, and mounts as rewritten paths.

There is no mount namespace: making one needs privileges that a developer's machine may not give
(docs/decisions/0008-node-agent.md). Where a container mounts a volume at /mnt/models, the text /mnt/models in its
command, arguments and environment is replaced by the volume's folder. A path that is compiled into a program is not.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import FleetError
from local.node_agent.environment import ConfigError, Facts, Lookup, field, resource

Object = dict[str, Any]
# (claim name) → its PersistentVolume, None while the claim is not bound.
Claims = Callable[[str], "Object | None"]
# (audience, seconds) → a token of the pod's service account.
Tokens = Callable[[str, int], str]
# (image name) → a folder with its files. Raises FleetError.
Images = Callable[[str], Path]

# A path begins after one of these, or at the start: `--model=/mnt/x`, `file:///mnt/x`, `a:/mnt/x`, `"/mnt/x"`.
_BEFORE = r"(?<![\w.\-/])|(?<=://)"
_AFTER = r"(?![\w.\-])"


def prepare(pod: Object, root: Path, facts: Facts, lookup: Lookup, claims: Claims, tokens: Tokens, images: Images) -> dict[str, Path]:
    """Makes the pod's volumes below `root`; volume name → folder. Repeatable. Raises ConfigError."""
    folders: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        name = volume["name"]
        folder = root / name
        if "persistentVolumeClaim" in volume:
            folders[name] = _claimed(volume["persistentVolumeClaim"]["claimName"], claims)
            continue
        if "image" in volume:
            try:
                folders[name] = images(volume["image"]["reference"])
            except FleetError as error:
                raise ConfigError(f"image volume {name}: {error}") from None
            continue
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folders[name] = folder
        if "emptyDir" in volume:
            # medium Memory too: a file system in memory would need a mount, and a folder in /dev/shm would outlive a
            # region that is killed.
            continue
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        wanted: dict[str, str] = {}
        for source in sources:
            wanted |= _files(name, source, pod, facts, lookup, tokens)
        _write(folder, wanted)
    return folders


def _claimed(claim: str, claims: Claims) -> Path:
    volume = claims(claim)
    if volume is None:
        raise ConfigError(f"PersistentVolumeClaim `{claim}` is not bound")
    path = (volume["spec"].get("hostPath") or {}).get("path")
    if not path:
        raise ConfigError(f"PersistentVolume `{volume['metadata']['name']}` is no hostPath; the node agent serves no other kind")
    if not Path(path).is_dir():
        raise ConfigError(f"PersistentVolume `{volume['metadata']['name']}`: no such folder on this machine: `{path}`")
    return Path(path)


def _files(volume: str, source: Object, pod: Object, facts: Facts, lookup: Lookup, tokens: Tokens) -> dict[str, str]:
    """Relative file name → content, of one source of a volume."""
    for kind, key, name_key in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
        if key in source:
            reference = source[key]
            # A projected secret says `name` like all the others.
            name = reference.get(name_key) or reference["name"]
            return _keys(kind, name, reference, lookup)
    if "serviceAccountToken" in source:
        reference = source["serviceAccountToken"]
        return {reference["path"]: tokens(reference.get("audience", ""), int(reference.get("expirationSeconds", 3600)))}
    if "downwardAPI" in source:
        return {item["path"]: _downward(item, pod, facts) for item in source["downwardAPI"].get("items") or []}
    kinds = ", ".join(key for key in source if key != "name")
    raise ConfigError(f"volume {volume}: the node agent serves no volume of kind: `{kinds}`")


def _downward(item: Object, pod: Object, facts: Facts) -> str:
    if "fieldRef" in item:
        return field(item["fieldRef"]["fieldPath"], facts)
    reference = item["resourceFieldRef"]
    container = next(each for each in pod["spec"]["containers"] if each["name"] == reference["containerName"])
    return resource(reference, container, facts)


def _keys(kind: str, name: str, reference: Object, lookup: Lookup) -> dict[str, str]:
    data = lookup(kind, name)
    if data is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f"{kind} `{name}` does not exist")
    items = reference.get("items")
    if not items:
        return dict(data)
    missing = [item["key"] for item in items if item["key"] not in data]
    if missing and not reference.get("optional"):
        raise ConfigError(f"{kind} `{name}` has no key `{missing[0]}`")
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def _write(folder: Path, wanted: Mapping[str, str]) -> None:
    for name, content in wanted.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ConfigError(f"volume file must stay inside its volume, got: `{name}`")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # Values that are no text arrive with their bytes escaped this way, and leave as the same bytes.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(content)
        temporary.replace(path)


def remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)


def mounts(container: Object, folders: Mapping[str, Path]) -> dict[str, str]:
    """mountPath → host path, of one container. Raises ConfigError for a subPath that leaves its volume."""
    paths: dict[str, str] = {}
    for mount in container.get("volumeMounts") or []:
        folder = folders[mount["name"]]
        target = (folder / mount.get("subPath", "")).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise ConfigError(f"volumeMount {mount['name']}: subPath must stay inside its volume, got: `{mount['subPath']}`")
        paths[mount["mountPath"].rstrip("/") or "/"] = str(target)
    return paths


def rewrite(text: str, paths: Mapping[str, str]) -> str:
    """`text` with every mounted path replaced by its host path. A longer mount wins over one that holds it."""
    mounted = sorted((path for path in paths if path != "/"), key=len, reverse=True)
    if not mounted:
        return text
    # One pass, so that a host path that happens to contain a mount path is not replaced again.
    pattern = f"(?:{_BEFORE})({'|'.join(map(re.escape, mounted))}){_AFTER}"
    return re.sub(pattern, lambda match: paths[match.group(1)], text)
