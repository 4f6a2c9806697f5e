"""CPUID data as they come in files: virsh's `<cpudata>` (also written), `cpuid -r` text, the
probe guest's records.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Any

from cpumap.arch.x86.cpuid import CpuidData, LeafId, Registers, vendor_string
from cpumap.arch.x86.instlat import is_instlat, read_instlat
from cpumap.cpu.bits import REGISTERS
from cpumap.errors import CpuidError
from cpumap.system.xml_document import Document

_RAW = re.compile(
    r"\s*(?P<leaf>0x[0-9a-f]{1,8})\s+(?P<subleaf>0x[0-9a-f]{1,8}):"
    r"\s*eax=(0x[0-9a-f]{1,"
    r"8})\s+ebx=(0x[0-9a-f]{1,8})\s+ecx=(0x[0-9a-f]{1,8})\s+edx=(0x[0-9a-f]{1,8})\s*",
    re.IGNORECASE,
)


# As in tools/probe/probe.asm: the second dword of records that are not CPUID.
_MSR, _MSR_FAULT, _VCPU = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


_RECORD = struct.Struct("<6I")


_LEAF_0 = bytes(8)
"""How the record of CPUID leaf 0 begins, which the probe always writes, and which no text holds."""


def read_cpuid(content: bytes | str, *, name: str = "<stdin>") -> CpuidData:
    """The data in a `<cpudata arch='x86'>` document, in what `cpuid -r` prints, in a dump as
    InstLatx64 has them, or in the probe guest's records.

    Which of them it is, the content says. Of several CPUs it is the first one's data. Raises
    `CpuidError` with
    `file:line`.
    """
    raw = content.encode() if isinstance(content, str) else content
    if is_records(raw):
        cpuid, msrs, _ = read_records(raw, name=name)
        return CpuidData(
            cpuid, {number: value for number, value in msrs.items() if value is not None}
        )
    text = raw.decode("utf-8", "replace")
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        document = Document.parse(content, name, CpuidError)
        return cpudata(document, document.root)
    if is_instlat(text):
        return _in_64_bits(read_instlat(text, name=name))
    return _in_64_bits(_raw(text, name))


_EXTENDED = (0x80000001, 0)
_SYSCALL, _LM = 1 << 11, 1 << 29


def _in_64_bits(data: CpuidData) -> CpuidData:
    """The data as a 64-bit program reads them: Intel's CPUs show SYSCALL to no other (Intel SDM,
    volume 2A, CPUID, leaf 80000001H), and many a dump was made by a 32-bit program.
    """
    eax, ebx, ecx, edx = data.cpuid.get(_EXTENDED, (0, 0, 0, 0))
    if not edx & _LM or vendor_string(data) != "GenuineIntel":
        return data
    return replace(data, cpuid={**data.cpuid, _EXTENDED: (eax, ebx, ecx, edx | _SYSCALL)})


def is_records(content: bytes) -> bool:
    """Whether the content is what the probe guest writes."""
    return _LEAF_0 in content


def cpudata(document: Document, element: Any) -> CpuidData:
    """The data in a `<cpudata arch='x86'>` element: virsh's format, which libvirt's own tools
    write too.
    """
    if element.tag != "cpudata" or element.get("arch") != "x86":
        raise document.error(element, "CPUID data in XML begin with <cpudata arch='x86'>")
    cpuid: dict[LeafId, Registers] = {}
    for entry in element.iterchildren("cpuid"):
        leaf = document.number(entry, "eax_in", required=True, base=0) or 0
        values = [
            document.number(entry, register, base=0) or 0 for register in ("ecx_in", *REGISTERS)
        ]
        if (leaf, values[0]) in cpuid:
            raise document.error(
                entry, f"CPUID leaf 0x{leaf:x}, subleaf {values[0]} is given twice"
            )
        cpuid[leaf, values[0]] = (values[1], values[2], values[3], values[4])
    msrs = {}
    for entry in element.iterchildren("msr"):
        index = document.number(entry, "index", required=True, base=0) or 0
        high, low = (document.number(entry, register, base=0) or 0 for register in ("edx", "eax"))
        msrs[index] = high << 32 | low
    if not cpuid:
        raise document.error(element, "no <cpuid> in <cpudata>")
    return CpuidData(cpuid, msrs)


def _raw(text: str, name: str) -> CpuidData:
    cpuid: dict[LeafId, Registers] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*CPU(\s+\d+)?:\s*$", line):
            if cpuid:
                break  # the next CPU
            continue
        match = _RAW.fullmatch(line)
        if match is None:
            if line.strip():
                raise CpuidError(
                    f"neither <cpudata> nor a line of `cpuid -r`: {line.strip()[:60]!r}",
                    f"{name}:{number}",
                )
            continue
        eax, ebx, ecx, edx = (int(value, 16) for value in match.group(3, 4, 5, 6))
        cpuid[int(match["leaf"], 16), int(match["subleaf"], 16)] = (eax, ebx, ecx, edx)
    if not cpuid:
        raise CpuidError("no CPUID data", name)
    return CpuidData(cpuid)


def cpudata_text(data: CpuidData) -> str:
    """The data as a `<cpudata>` document."""
    lines = ["<cpudata arch='x86'>"]
    for (leaf, subleaf), values in data.cpuid.items():
        words = " ".join(
            f"{register}='0x{value:08x}'" for register, value in zip(REGISTERS, values, strict=True)
        )
        lines.append(f"  <cpuid eax_in='0x{leaf:08x}' ecx_in='0x{subleaf:02x}' {words}/>")
    for number, value in data.msrs.items():
        lines.append(
            f"  <msr index='0x{number:x}' edx='0x{value >> 32:08x}' "
            f"eax='0x{value & 0xFFFFFFFF:08x}'/>"
        )
    return "\n".join([*lines, "</cpudata>", ""])


def read_records(
    content: bytes, *, name: str = "<stdin>"
) -> tuple[dict[LeafId, Registers], dict[int, int | None], list[dict[LeafId, Registers]]]:
    """CPUID of the boot processor, MSRs (None: reading faults), and what every other vCPU says of
    the topology.

    tools/probe/probe.asm describes the records. Raises `CpuidError` for what the probe did not
    write to its end.
    """
    if not content or len(content) % _RECORD.size:
        raise CpuidError(
            f"what a probe guest wrote is cut off: {len(content)} bytes are no whole number of "
            "records",
            name,
        )
    cpuid: dict[LeafId, Registers] = {}
    msrs: dict[int, int | None] = {}
    others: list[dict[LeafId, Registers]] = []
    view = cpuid
    for leaf, subleaf, eax, ebx, ecx, edx in _RECORD.iter_unpack(content):
        if subleaf == _VCPU:
            others.append(view := {})
        elif subleaf in (_MSR, _MSR_FAULT):
            msrs[leaf] = edx << 32 | eax if subleaf == _MSR else None
            view = cpuid  # the boot processor begins with its MSRs
        else:
            view[leaf, subleaf] = (eax, ebx, ecx, edx)
    if (0, 0) not in cpuid:
        raise CpuidError("what a probe guest wrote is cut off: there is no CPUID leaf 0", name)
    return cpuid, msrs, others
