"""libvirt's own code of several releases, asked without any daemon: the judge of `rules`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import libvirt_answers
from tests.support.paths import TREE
from tests.support.releases import LIBVIRTS

LIBRARIES = "usr/lib/x86_64-linux-gnu"
CPU_MAP = "usr/share/libvirt/cpu_map"

_START = """
mount --bind "$MAP" /usr/share/libvirt/cpu_map
exec "$LIBRARIES/ld-linux-x86-64.so.2" --library-path "$LIBRARIES" "$@"
"""
"""libvirt looks for its CPU map in one place only; the newer C library runs any older Python."""

Blocked = Mapping[str, Sequence[str] | None]
"""A list of usable models: each with what keeps it from being run, if anything does."""


class RefusedError(Exception):
    """What libvirt said instead of an answer."""


@dataclass(frozen=True)
class LibvirtCode:
    """One release's code, in a process of its own."""

    release: str
    process: subprocess.Popen[str]

    @property
    def cpu_map(self) -> Path:
        """The CPU map of this release."""
        return root_of(self.release) / CPU_MAP

    def compare(self, host: str, cpu: str, fail: bool = False) -> int:
        """virCPUCompareResult; 0 incompatible, 1 identical, 2 superset. Raises `RefusedError`."""
        return int(self._ask("compare", host=host, cpu=cpu, fail=fail))

    def baseline(
        self,
        cpus: Sequence[str],
        expand: bool = False,
        migratable: bool = False,
        models: Blocked | None = None,
    ) -> str:
        """The `<cpu>` of virConnectBaselineCPU. Raises `RefusedError`."""
        asked = {"cpus": list(cpus), "expand": expand, "migratable": migratable}
        return str(self._ask("baseline", **asked, models=models))

    def decode(self, data: str, guest: bool, models: Blocked | None = None) -> str:
        """The `<cpu>` that `<cpudata>` are. Raises `RefusedError`."""
        return str(self._ask("decode", data=data, guest=guest, models=models))

    def update(self, host: str, cpu: str, models: Blocked | None = None) -> str:
        """The guest's `<cpu>` resolved as before a start, on a host-model. Raises
        `RefusedError`.
        """
        return str(self._ask("update", host=host, cpu=cpu, models=models))

    def _ask(self, ask: str, **arguments: Any) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps({"ask": ask, **arguments}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"libvirt {self.release} ended over {ask} {arguments}"
        said = json.loads(line)
        if "refused" in said:
            raise RefusedError(said["refused"])
        return said["answer"]


def root_of(release: str) -> Path:
    """The root in which this release is installed."""
    return LIBVIRTS / f"libvirt-{release}"


@contextmanager
def libvirt_code(release: str) -> Iterator[LibvirtCode]:
    """The code of this release. Wants root, for a mount that nobody else sees."""
    root = root_of(release)
    environment = {
        **os.environ,
        "MAP": str(root / CPU_MAP),
        "LIBRARIES": str(root / LIBRARIES),
        "PYTHONPATH": str(TREE),
    }
    command = ["unshare", "--mount", "sh", "-ec", _START, "sh", os.path.realpath(sys.executable)]
    process = subprocess.Popen(
        [*command, str(libvirt_answers.__file__)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield LibvirtCode(release, process)
    finally:
        process.communicate(timeout=30)
