"""A command run as the image's trial runs it: what the kernel lets it do, and that it goes with who started it."""

import os
import subprocess
from pathlib import Path

import pytest

from runtime_image.image.confined import Container
from tests.conftest import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces with mounts are root's")

USER = 1234567890
# Enough of this machine for a shell; links such as /bin lead into /usr.
_SYSTEM = {f"/{name}": f"/{name}" for name in ("usr", "bin", "lib", "lib64") if Path("/", name).exists()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    for name in ("proc", "sys", "dev", "tmp", "etc", "home/vllm"):
        (folder / name).mkdir(parents=True)
    (folder / "etc" / "hosts").touch()
    return folder


def container(root: Path, script: str) -> Container:
    return Container(str(root), USER, "/", _SYSTEM, ["/usr/bin/env", "sh", "-c", script])


def test_it_is_nobody_in_a_root_that_cannot_be_written_to(root: Path) -> None:
    script = """
    echo "user=$(id -u) group=$(id -g) groups=$(id -G) process=$$"
    grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -s '\\t' ' '
    for place in / /etc /usr /sys /dev; do touch $place/x 2>/dev/null && echo "wrote $place"; done
    for place in /tmp /home/vllm /dev/shm; do touch $place/x || echo "could not write $place"; done
    echo > /dev/null && head -c 4 /dev/urandom | wc -c
    """
    done = subprocess.run(container(root, script).arguments(), env={"PATH": "/usr/bin:/bin:/usr/sbin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"user={USER} group=0 groups=0 process=1"
    assert sorted(lines[1:4]) == ["CapBnd: 0000000000000000", "CapEff: 0000000000000000", "NoNewPrivs: 1"]
    assert lines[4:] == ["4"], "each other line is a place that could be written to and should not, or the other way round"
    assert not (root / "tmp" / "x").exists()


def test_it_goes_with_who_started_it(root: Path) -> None:
    started = subprocess.Popen(container(root, "sleep 600").arguments(), env={"PATH": "/usr/bin:/bin:/usr/sbin"})
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")

    def runs_as_user() -> bool:
        found = children.read_text().split()
        return bool(found) and Path(f"/proc/{found[0]}").stat().st_uid == USER

    try:
        wait_until(runs_as_user, "the command to run as its user", 20)
        inner = Path("/proc", children.read_text().split()[0])
    finally:
        started.kill()
        started.wait()
    wait_until(lambda: not inner.exists(), "the command to go", 20)
