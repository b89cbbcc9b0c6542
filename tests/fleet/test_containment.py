"""What must not leave this machine, or this folder: sockets and secrets."""

import base64
import ipaddress
import stat
from pathlib import Path

import yaml

from tests.fleet.conftest import Fleet, Ran

_LISTEN = "0A"


def _sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found: set[str] = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        # Ended meanwhile.
        pass
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """As /proc/net/tcp has it: words of 32 bits in the byte order of the machine."""
    raw = bytes.fromhex(text)
    packed = b"".join(raw[place : place + 4][::-1] for place in range(0, len(raw), 4))
    address = ipaddress.ip_address(packed)
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _listeners() -> dict[str, tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Inode to address and port of every listening TCP socket."""
    found: dict[str, tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, port = fields[1].split(":")
                found[fields[9]] = (_address(address), int(port, 16))
    return found


def test_nothing_listens_beyond_loopback(fleet: Fleet) -> None:
    listeners = _listeners()
    ours = {inode: pid for pid in fleet.processes() for inode in _sockets(pid)}
    held = {inode: listener for inode, listener in listeners.items() if inode in ours}
    # Four API servers, their etcds, gateways, pods: an empty list would mean that this test looks at the wrong place.
    assert len(held) > 40
    outside = [
        f"{address}:{port} by {Path(f'/proc/{ours[inode]}/cmdline').read_text().replace(chr(0), ' ')[:150]}"
        for inode, (address, port) in held.items()
        if not address.is_loopback
    ]
    assert not outside


def _secrets(fleet: Fleet) -> dict[str, bytes]:
    """What opens an API server, in every form in which it could be written down."""
    found: dict[str, bytes] = {}
    for cluster in ("hub", "us-east", "us-west", "eu-west"):
        config = yaml.safe_load((fleet.state / "clusters" / cluster / "kubeconfig").read_text())
        encoded: str = config["users"][0]["user"]["client-key-data"]
        found[f"key of {cluster}, base64"] = encoded.encode()
        # One line of it: the whole would be written with its line ends escaped.
        found[f"key of {cluster}"] = base64.b64decode(encoded).splitlines()[1]
    with fleet.kube("hub") as hub:
        for secret in hub.list("v1", "Secret", "karmada-cluster"):
            token = secret["data"]["token"]
            found[f"token {secret['metadata']['name']}, base64"] = token.encode()
            found[f"token {secret['metadata']['name']}"] = base64.b64decode(token)
    assert len(found) == 2 * (4 + 6)
    return found


def test_secrets_stand_in_no_log_and_in_no_state_of_pulumi(fleet: Fleet, first_up: Ran) -> None:
    clusters = fleet.state / "clusters"
    files = [path for path in (fleet.state / "pulumi").rglob("*") if path.is_file()]
    for pattern in ("*/logs/*", "*/pods/**/*.log", "*/desired/*", "*/units/*", "*/run/*"):
        files += clusters.glob(pattern)
    texts = {str(path.relative_to(fleet.state)): path.read_bytes() for path in files if path.is_file()}
    assert any("pulumi" in name and name.endswith(".json") for name in texts)
    assert any(name.endswith("kube-apiserver.log") for name in texts)
    texts["output of fleet up"] = (first_up.out + first_up.err).encode()
    texts["pulumi stack export"] = fleet.pulumi("stack", "export", "-s", "local").out.encode()
    texts["pulumi stack output"] = fleet.pulumi("stack", "output", "-s", "local", "--json").out.encode()
    markers = {**_secrets(fleet), "a PEM key": b"PRIVATE KEY", "a PEM key, base64": base64.b64encode(b"-----BEGIN EC PRIVATE KEY")[:30]}
    leaks = [f"{what} in {where}" for where, text in texts.items() for what, secret in markers.items() if secret in text]
    assert not leaks


def test_secrets_stand_on_no_command_line(fleet: Fleet) -> None:
    secrets = _secrets(fleet)
    for pid in fleet.processes():
        try:
            seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        assert not [what for what, secret in secrets.items() if secret in seen]


def test_the_state_folder_is_for_its_owner_only(fleet: Fleet) -> None:
    assert stat.S_IMODE(fleet.state.stat().st_mode) == 0o700
    readable = [path for path in fleet.state.rglob("*.key") if path.stat().st_mode & 0o077]
    readable += [path for path in fleet.state.rglob("kubeconfig") if path.stat().st_mode & 0o077]
    assert not readable
