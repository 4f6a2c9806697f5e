"""s390x: a CPU is a base model that no release changes, and features that are on or off."""

from __future__ import annotations

from cpumap.arch.arch import Arch
from cpumap.arch.groups import Groups
from cpumap.cpu.names import PropertyName

S390X = Arch(
    name="s390x",
    target="s390x",
    cpu_type="s390x-cpu",
    families=("s390-ccw-virtio",),
    default_model="qemu",
    host_passthrough={"kvm": "host", "tcg": "max"},
    expansions=frozenset({"static", "full"}),
    explicit="static",
    # QEMU starts no CPU with less than was asked for, and tcg has no way to be forced to.
    judges=("expanded again", "seen by a guest"),
    groups=Groups("s390x/groups.json"),
    # deprecated-props of QEMU 10.0 and 11.1
    deprecated=frozenset(map(PropertyName, ("bpb", "csske", "cte", "te"))),
    cpuid=False,
    models_under_kvm="2.8",
    any_feature=True,
)
