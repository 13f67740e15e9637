"""Hosts that are not there: each with its own network, processes, files, shared memory and sshd, on one bridge.

Needs root and Debian's openssh-server, rsync and iproute2. A host's root is an overlay of this machine's, in memory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import wait_for

NEEDED = ("ip", "unshare", "sshd", "ssh", "rsync", "ssh-keygen")
SUBNET = "10.83.7"
MEMORY = "size=6g"
SSHD = "/usr/sbin/sshd -D -e -o UsePAM=no -o PermitRootLogin=prohibit-password -o StrictModes=no -o PrintMotd=no"
START_S = 30.0
PREFIX = f"adh{os.getpid() % 10000}"
"""Begins every name of this process's hosts, cables and mounts."""

INIT = """set -e
root={folder}/root
hostname {name}
mount -t proc proc $root/proc
mount --rbind /sys $root/sys
mount --rbind /dev $root/dev
mount --make-rslave $root/dev
mount -t tmpfs -o size=1g tmpfs $root/dev/shm
mount -t tmpfs tmpfs $root/run
mount -t tmpfs tmpfs $root/tmp
mkdir -p $root/run/sshd
rm -rf $root/root/.ssh $root/root/.ray
mkdir -p -m 700 $root/root/.ssh
cp {key}.pub $root/root/.ssh/authorized_keys
chmod 600 $root/root/.ssh/authorized_keys
cd $root
exec chroot $root {sshd} -o PidFile=/run/sshd.pid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One simulated machine."""

    name: str
    address: str
    key: Path
    link: str
    """Its cable, on this machine's side."""

    def run(self, command: str, *, timeout_s: float = 60.0) -> str:
        """Output of a shell command there, by ssh."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"]
        line = ["ssh", "-q", "-i", str(self.key), *options, f"root@{self.address}", command]
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, check=True).stdout

    def cut_off(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self.link, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self.link, "up")

    def ray_processes(self) -> list[str]:
        """Ray's processes that run there."""
        pattern = "[r]aylet|[g]cs_server|[r]ay::|ray/[d]ashboard|[r]ay/autoscaler"
        return self.run(f"pgrep -af '{pattern}' || true").splitlines()


def missing_requirements() -> list[str]:
    """What this machine lacks to simulate hosts."""
    lacking = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return lacking + ([] if os.geteuid() == 0 else ["root"])


@contextmanager
def simulated_hosts(count: int) -> Iterator[list[Host]]:
    """Hosts for the length of the block; whatever happens, nothing of them stays."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adh", dir="/run")))
        _run("mount", "-t", "tmpfs", "-o", MEMORY, "tmpfs", str(folder))
        stack.callback(_run, "umount", "-R", str(folder), check=False)
        key = folder / "key"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        bridge = f"{PREFIX}br"
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge, check=False)
        _ip("addr", "add", f"{SUBNET}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield [stack.enter_context(_host(f"{PREFIX}{number}", number, folder, key, bridge)) for number in range(count)]


@contextmanager
def _host(name: str, number: int, home: Path, key: Path, bridge: str) -> Iterator[Host]:
    host = Host(name=name, address=f"{SUBNET}.{10 + number}", key=key, link=f"v{name}")
    folder = home / name
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name, check=False)
        _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        stack.callback(_ip, "link", "del", host.link, check=False)
        _ip("link", "set", host.link, "master", bridge, "up")
        _ip("-n", name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "route", "add", "default", "via", f"{SUBNET}.1")
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        layers = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, str(folder / "root"))
        stack.callback(_run, "umount", "-R", str(folder / "root"), check=False)
        (folder / "init").write_text(INIT.format(folder=folder, name=name, key=key, sshd=SSHD))
        stack.enter_context(_booted(name, folder))
        wait_for(f"sshd of {name}", lambda: _answers(host), timeout_s=START_S, give_up=(folder / "log").read_text)
        yield host


@contextmanager
def _booted(name: str, folder: Path) -> Iterator[None]:
    """The first process of a host; all others end with it."""
    unshare = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *unshare, "bash", str(folder / "init")],
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(START_S)


def _answers(host: Host) -> bool:
    try:
        return host.run("echo up") == "up\n"
    except subprocess.SubprocessError:
        return False


def _ip(*arguments: str, check: bool = True) -> None:
    _run("ip", *arguments, check=check)


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
