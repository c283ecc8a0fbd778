"""Hosts for tests: network namespaces on one bridge, each with processes, a name, a boot id and a machine id of its own.

    with Network.made() as network:
        left, right = network.add("left"), network.add("right")
        left.run(["durable-nb", "worker", "shop"], ...)
        left.cut(); left.join()                # its link goes down, and up again

It takes root, `ip`, `unshare`, and a kernel that makes them. The bridge is in a namespace too: nothing is seen or changed
outside, and addresses are free to choose.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

_SUBNET = "10.77.0"

_ENTER = """
set -e
mount --bind "$0/boot_id" /proc/sys/kernel/random/boot_id
if [ -e /etc/machine-id ]; then mount --bind "$0/machine-id" /etc/machine-id; fi
hostname "$1"
shift
exec "$@"
"""


class Host:
    """A namespace with one address, and a folder for what is its own."""

    def __init__(self, name: str, namespace: str, address: str, hub: str, folder: Path) -> None:
        self.name, self.namespace, self.address = name, namespace, address
        self._hub = hub
        self.folder = folder
        folder.mkdir(mode=0o755)
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (folder / "machine-id").write_text(f"{uuid.uuid4().hex}\n")

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to see this host's network, and no more."""
        return ("ip", "netns", "exec", self.namespace)

    def popen(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command; all that it starts ends with it."""
        words = [*self.inside, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words += ["sh", "-c", _ENTER, str(self.folder), self.name, *command]
        return subprocess.Popen(words, env=dict(env), cwd=cwd, text=True, **options)

    def run(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> str:
        """Run a command to its end; returns what it says."""
        process = self.popen(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{said}\n{errors}"
        return str(said)

    def cut(self) -> None:
        """Nothing goes in or out; nobody is told."""
        _ip("-n", self._hub, "link", "set", f"p-{self.name}", "down")

    def join(self) -> None:
        """The link is back."""
        _ip("-n", self._hub, "link", "set", f"p-{self.name}", "up")


class Network:
    """A bridge and the hosts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = f"dnb{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self._names: list[str] = []
        self._hosts = 0
        self._hub = self._namespace("hub")
        _ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "bridge", "up")

    @classmethod
    @contextlib.contextmanager
    def made(cls) -> Iterator[Self]:
        """A network; the test is skipped, with the reason, where none can be made."""
        reason = why_not()
        if reason is not None:
            pytest.skip(reason)
        folder = Path(tempfile.mkdtemp(prefix="dnb-hosts-"))
        folder.chmod(0o755)
        network = cls(folder)
        try:
            yield network
        finally:
            network.close()
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def subnet(self) -> str:
        """All addresses."""
        return f"{_SUBNET}.0/24"

    def add(self, name: str) -> Host:
        """A host of this name (at most eight letters)."""
        namespace = self._namespace(name)
        self._hosts += 1
        host = Host(name, namespace, f"{_SUBNET}.{self._hosts}", self._hub, self.folder / name)
        _ip("-n", self._hub, "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._hub, "link", "set", f"p-{name}", "master", "bridge", "up")
        _ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", namespace, "link", "set", device, "up")
        return host

    def _namespace(self, name: str) -> str:
        full = f"{self._mark}-{name}"
        _ip("netns", "add", full)
        self._names.append(full)
        return full

    def close(self) -> None:
        """Remove all of it. The links go with their namespaces."""
        for name in self._names:
            _ip("netns", "delete", name)


def why_not() -> str | None:
    """Why no network can be made here; None when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            return f"network namespaces need `{program}` (Debian: apt-get install iproute2 util-linux)"
    name = f"dnb{os.getpid()}-try"
    try:
        _ip("netns", "add", name)
        try:
            for kind in ("bridge", "veth"):
                _ip("-n", name, "link", "add", f"try-{kind}", "type", kind)
        finally:
            _ip("netns", "delete", name)
    except RuntimeError as exc:
        return f"no network namespaces can be made here: {exc}"
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    tried = subprocess.run(command, check=False, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no hosts can be made here: {tried.stderr.strip()}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
