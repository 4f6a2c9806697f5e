"""ppc64 and ppc64le: a CPU is an exact model, and what the pseries machine does for it.

QEMU has no properties of the CPU itself here: what differs from one machine type to the next are
options of the machine (measured on 5.2 to 11.1 by the device tree that guests read).
"""

from __future__ import annotations

import re

from cpumap.arch.arch import Arch, Properties
from cpumap.cpu.names import PropertyName, Value

_IC_MODE, _COMPAT = map(PropertyName, ("ic-mode", "max-cpu-compat"))


OF_MACHINE = re.compile(r"cap-[a-z0-9-]+|vsmt|max-cpu-compat|resize-hpt|ic-mode")
"""The machine's options that a guest's CPU consists of: capabilities, the numbering of its threads,
the version that it is held down to, and what the hypervisor's page table and interrupts look like.
"""


_SAME_AS: dict[PropertyName, tuple[Value, Value]] = {_IC_MODE: ("legacy", "xics")}
"""Machine types before 3.1 read out a value that stands for them alone (measured on 7.2: with the
other one the device tree is the same).
"""


def _refused(name: PropertyName, value: Value, _realised: Properties) -> bool:
    return name in _SAME_AS and value == _SAME_AS[name][0]


def _ppc64(name: str) -> Arch:
    return Arch(
        name=name,
        target="ppc64",
        cpu_type="powerpc64-cpu",
        families=("pseries",),
        default_model=None,
        host_passthrough={"kvm": "host", "tcg": "max"},
        named=OF_MACHINE,
        of_machine=OF_MACHINE,
        judges=("realised", "device tree"),
        cpuid=False,
        defaults={_COMPAT: ""},
        refused=_refused,
        same_as=_SAME_AS,
        compared=False,
        threads_measured=False,
        any_feature=True,
        any_case=True,
    )


PPC64 = _ppc64("ppc64")
PPC64LE = _ppc64("ppc64le")
