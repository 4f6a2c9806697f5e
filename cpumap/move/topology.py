"""What leaves say of a package's dies, cores and threads, and in which releases they say it
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

from cpumap.cpu.topology import Topology
from cpumap.move.side import AMD, Side, Where, widened

VCPU_NUMBER = (0x1F, "edx")
"""Where each vCPU reads its own x2APIC ID."""


def counts(side: Side, topology: Topology) -> Iterator[tuple[Where, int]]:
    """Where one release counts the cores of a die, and the other those of the package, or the room
    for them.

    The room is what APIC IDs have, a power of two at each level.
    """
    dies, cores, threads = topology.dies, topology.cores, topology.threads
    of_die, of_package = cores * threads, dies * cores * threads
    room = _room(topology)
    is_amd = side.get("vendor") in AMD
    yield (0x1, 0, "ebx"), (_several(of_die) ^ _several(of_package if is_amd else room)) << 16
    if of_die == 1 < of_package and side.accel == "tcg" and side.get("ht") is not True:
        yield (0x1, 0, "edx"), 1 << 28
    if of_die == 1 < of_package and is_amd and side.get("cmp-legacy") is not True:
        yield (0x80000001, 0, "ecx"), 1 << 1
    if side.get("cpuid-0xb") is True:
        yield (0xB, 1, "ebx"), of_die ^ of_package
    yield (0x80000008, 0, "ecx"), _package(of_die, room) ^ _package(of_package, room)


def _room(topology: Topology) -> int:
    return widened(topology.dies) * widened(topology.cores) * widened(topology.threads)


def _several(count: int) -> int:
    """The number of vCPUs in a package as leaf 0x1 has it: none where there is one."""
    return count if count > 1 else 0


def _package(count: int, room: int) -> int:
    """AMD's number of vCPUs in a package and the width of their APIC IDs, as leaf 0x80000008 has
    it; 0 for one.
    """
    return (room - 1).bit_length() << 12 | count - 1 if count > 1 else 0


def topology_leaf(topology: Topology) -> Iterator[tuple[Where, int]]:
    """Leaf 0x1F where there are only cores and threads: for each level its shift, its number and
    its type.
    """
    if topology.several_dies:
        return
    threads, cores = topology.threads, topology.cores * topology.threads
    width = (widened(threads) - 1).bit_length()
    levels = (
        (width, threads, 0x100),
        (width + (widened(topology.cores) - 1).bit_length(), cores, 0x201),
        (0, 0, 2),
    )
    for subleaf, (shift, count, kind) in enumerate(levels):
        yield (0x1F, subleaf, "eax"), shift
        yield (0x1F, subleaf, "ebx"), count
        yield (0x1F, subleaf, "ecx"), kind
        yield (0x1F, subleaf, "edx"), widened(topology.sockets) * _room(topology) - 1


def core_count(side: Side, topology: Topology) -> Iterator[tuple[Where, int]]:
    """AMD's number of cores, which other vendors' CPUs do not give any more."""
    if side.get("vendor") not in AMD:
        count = topology.dies * topology.cores * topology.threads
        yield (0x80000008, 0, "ecx"), _package(count, _room(topology))
