"""The CPU that a guest sees: QEMU started with a firmware that executes CPUID and says what it
got.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cpumap.arch.x86.cpuid import CpuidData, LeafId, Registers
from cpumap.arch.x86.cpuid_formats import read_records
from cpumap.cpu.bits import REGISTERS, Register
from cpumap.cpu.names import Accel
from cpumap.errors import CpuidError, SourceError
from cpumap.system.data import data_path
from cpumap.system.process import Process, ending

TOPOLOGY_LEAVES = (0x1, 0x4, 0xB, 0x1F, 0x8000001D, 0x8000001E, 0x80000026)
"""What a vCPU other than the first may answer differently; the probe reads these on every vCPU."""


_EXIT_STATUS = 0x2A << 1 | 1  # EXIT_STATUS of tools/probe/probe.asm, which isa-debug-exit shifts


_FIRMWARE_SIZE = 65536  # what -bios wants a multiple of


@dataclass(frozen=True, slots=True)
class Mask:
    """Bits of one CPUID register that say which vCPU or which boot this is, not which CPU."""

    name: str
    leaf: int
    subleaf: int | None
    """None: every subleaf."""
    register: Register
    bits: int
    per: Literal["vcpu", "boot"]
    reason: str


MASKS = (
    Mask(
        "initial APIC ID",
        0x1,
        0,
        "ebx",
        0xFF000000,
        "vcpu",
        "the number of the vCPU that executes CPUID",
    ),
    Mask(
        "x2APIC ID",
        0xB,
        None,
        "edx",
        0xFFFFFFFF,
        "vcpu",
        "the number of the vCPU that executes CPUID",
    ),
    Mask(
        "x2APIC ID",
        0x1F,
        None,
        "edx",
        0xFFFFFFFF,
        "vcpu",
        "the number of the vCPU that executes CPUID",
    ),
    Mask(
        "extended APIC ID",
        0x8000001E,
        0,
        "eax",
        0xFFFFFFFF,
        "vcpu",
        "the number of the vCPU that executes CPUID",
    ),
    Mask(
        "compute unit or core ID",
        0x8000001E,
        0,
        "ebx",
        0xFF,
        "vcpu",
        "the core that the vCPU is in",
    ),
    Mask("node ID", 0x8000001E, 0, "ecx", 0xFF, "vcpu", "the node that the vCPU is in"),
    Mask(
        "extended x2APIC ID", 0x80000026, None, "edx", 0xFFFFFFFF, "vcpu", "the number of the vCPU"
    ),
    Mask(
        "TSC to crystal clock ratio",
        0x15,
        0,
        "ebx",
        0xFFFFFFFF,
        "boot",
        "measured anew when the host boots",
    ),
    Mask(
        "crystal clock in Hz",
        0x15,
        0,
        "ecx",
        0xFFFFFFFF,
        "boot",
        "measured anew when the host boots",
    ),
    Mask("processor base frequency", 0x16, 0, "eax", 0xFFFF, "boot", "the host's"),
    Mask("processor maximum frequency", 0x16, 0, "ebx", 0xFFFF, "boot", "the host's"),
    Mask(
        "TSC frequency in kHz",
        0x40000010,
        0,
        "eax",
        0xFFFFFFFF,
        "boot",
        "measured anew when the host boots",
    ),
)
"""What is set aside when two guests are compared. Sources: Intel SDM vol. 2A CPUID, AMD APM vol.
3 appendix E.
"""


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """What a guest read."""

    cpuid: Mapping[LeafId, Registers]
    """Every leaf and subleaf, on the boot processor, but for subleaves other than 0 that are all
    0.
    """
    msrs: Mapping[int, int | None] = field(default_factory=dict)
    """MSRs that describe the CPU, by number; None where reading faults (#GP, or #UD without
    MSRs).
    """
    vcpus: tuple[Mapping[LeafId, Registers], ...] = ()
    """The topology leaves on every vCPU, in the order of their APIC IDs, the boot processor's
    among them.
    """

    def data(self) -> CpuidData:
        """What was read, for `features_of` and `decode`: MSRs that fault are left out."""
        return CpuidData(
            self.cpuid, {number: value for number, value in self.msrs.items() if value is not None}
        )

    def masked(self, masks: Sequence[Mask] = MASKS) -> GuestCpu:
        """The same with the masks' bits 0. On `vcpus` only what is per boot is masked: APIC IDs
        belong to the ABI.
        """
        per_boot = [mask for mask in masks if mask.per == "boot"]
        return GuestCpu(
            _masked(self.cpuid, masks),
            self.msrs,
            tuple(_masked(vcpu, per_boot) for vcpu in self.vcpus),
        )


@dataclass(frozen=True, slots=True)
class BitDifference:
    """One register, or one MSR, in which two guests differ."""

    leaf: int
    """The MSR's number when `register` is "msr"."""
    subleaf: int
    register: Register | Literal["msr"]
    xor: int
    """The bits that differ; where one side has nothing, the bits set on the other."""
    a: int | None
    """None: no such leaf, subleaf or vCPU, or reading the MSR faults."""
    b: int | None
    vcpu: int | None = None
    """Index in `vcpus`; None for the full view of the boot processor."""


def differences(
    a: GuestCpu, b: GuestCpu, masks: Sequence[Mask] = MASKS
) -> tuple[BitDifference, ...]:
    """Every register and MSR in which two guests differ, masked bits apart; empty when the CPUs are
    the same.

    A leaf that one side does not have counts as different in its registers that are not 0. Nothing
    is lost by that: the highest leaf, or what ends the list of subleaves, differs as well then.
    """
    a, b = a.masked(masks), b.masked(masks)
    found = [*_leaf_differences(a.cpuid, b.cpuid, None), *_msr_differences(a.msrs, b.msrs)]
    for index in range(max(len(a.vcpus), len(b.vcpus))):
        of_a, of_b = (cpu.vcpus[index] if index < len(cpu.vcpus) else {} for cpu in (a, b))
        found += _leaf_differences(of_a, of_b, index)
    return tuple(found)


def probe(
    qemu: str | Path,
    machine: str,
    cpu_args: Sequence[str],
    *,
    accel: Accel,
    smp: str = "1",
    timeout: float = 30,
) -> GuestCpu:
    """The CPU that a guest sees: what it wrote, read. Arguments and errors: as `probe_records`."""
    return parse_records(
        probe_records(qemu, machine, cpu_args, accel=accel, smp=smp, timeout=timeout)
    )


def probe_records(
    qemu: str | Path,
    machine: str,
    cpu_args: Sequence[str],
    *,
    accel: Accel,
    smp: str = "1",
    timeout: float = 30,
) -> bytes:
    """What a guest writes of its CPU in this QEMU, on this machine type, with these arguments
    (`["-cpu", "Haswell"]`).

    Works on pc, q35, isapc and microvm machine types of QEMU 5.2 and newer; not on the Xen and
    nitro ones, which start no firmware. `smp` is the value of `-smp`, 255 vCPUs at most; the
    timeout is in seconds. SourceError, with what QEMU wrote to its standard error, when it refuses,
    dies or takes too long; no process is left behind.
    """
    with TemporaryDirectory(prefix="cpumap-") as directory:
        firmware, records = Path(directory, "firmware"), Path(directory, "records")
        firmware.write_bytes(data_path("probe.bin").read_bytes().rjust(_FIRMWARE_SIZE, b"\0"))
        command = [
            str(qemu),
            "-machine",
            f"{machine},accel={accel}",
            "-nodefaults",
            "-no-user-config",
        ]
        command += ["-display", "none", "-no-reboot", "-smp", smp, "-bios", str(firmware)]
        command += ["-chardev", f"file,id=probe,path={str(records).replace(',', ',,')}"]
        command += ["-device", "isa-debugcon,chardev=probe", "-device", "isa-debug-exit", *cpu_args]
        _run(command, f"{qemu} on {machine} ({accel})", timeout)
        return records.read_bytes()


def parse_records(data: bytes) -> GuestCpu:
    """What the probe wrote to the debug console. Errors: `SourceError` when it did not come to
    its end.
    """
    try:
        cpuid, msrs, others = read_records(data, name="debug console")
    except CpuidError as err:
        raise SourceError(str(err)) from err
    own = {key: value for key, value in cpuid.items() if key[0] in TOPOLOGY_LEAVES}
    return GuestCpu(cpuid, msrs, tuple(sorted([*others, own], key=_apic_id)))


def _run(command: Sequence[str], what: str, timeout: float) -> None:
    """Runs QEMU to its end; SourceError unless the probe guest itself ended it."""
    with Process(command, timeout=timeout) as process:
        code = process.wait(timeout)
        said = "".join(f"\n{line}" for line in dict.fromkeys(process.said()))
    if code is None:
        raise SourceError(f"{what}: no end after {timeout:g} s{said}")
    if code != _EXIT_STATUS:
        raise SourceError(f"{what}: {ending(code)}{said}")


def _apic_id(view: Mapping[LeafId, Registers]) -> int:
    return view.get((0x1, 0), (0, 0, 0, 0))[1] >> 24  # `base` may end at leaf 0


def _masked(cpuid: Mapping[LeafId, Registers], masks: Iterable[Mask]) -> dict[LeafId, Registers]:
    result = dict(cpuid)
    for mask in masks:
        position = REGISTERS.index(mask.register)
        for key in [
            key for key in result if key[0] == mask.leaf and mask.subleaf in (None, key[1])
        ]:
            registers = list(result[key])
            registers[position] &= ~mask.bits
            result[key] = (registers[0], registers[1], registers[2], registers[3])
    return result


def _leaf_differences(
    a: Mapping[LeafId, Registers], b: Mapping[LeafId, Registers], vcpu: int | None
) -> Iterator[BitDifference]:
    for leaf, subleaf in sorted(a.keys() | b.keys()):
        of_a, of_b = a.get((leaf, subleaf)), b.get((leaf, subleaf))
        for position, register in enumerate(REGISTERS):
            in_a, in_b = (of[position] if of else None for of in (of_a, of_b))
            if xor := (in_a or 0) ^ (in_b or 0):
                yield BitDifference(leaf, subleaf, register, xor, in_a, in_b, vcpu)


def _msr_differences(
    a: Mapping[int, int | None], b: Mapping[int, int | None]
) -> Iterator[BitDifference]:
    for number in sorted(a.keys() | b.keys()):
        in_a, in_b = a.get(number), b.get(number)
        if in_a != in_b:
            yield BitDifference(number, 0, "msr", (in_a or 0) ^ (in_b or 0), in_a, in_b)
