"""Which source answers: the one that was named, else the domain's own emulator if it is trusted,
else the QEMU on PATH, else a recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cpumap.arch.known import DEFAULT, arch_of, target_of
from cpumap.cpu.frozen import Frozen
from cpumap.cpu.machine_type import machine_type, release
from cpumap.cpu.names import Accel
from cpumap.cpu.request import CpuRequest
from cpumap.cpu.vendors import vendor_of
from cpumap.errors import ArchitectureError, SourceError, UnknownNameError, one_of
from cpumap.sources.machines import advice, has_machine
from cpumap.sources.source import Source
from cpumap.system.trust import program, reason_not_to_run

if TYPE_CHECKING:
    from cpumap.sources.libvirt import Hypervisor


ANY_REQUEST = CpuRequest(accel="tcg")


class Wanted(Frozen):
    """What the user said about where answers should come from."""

    qemu: str | None = None
    """A binary to start."""
    qmp: str | None = None
    """A QMP socket to attach to."""
    recorded: str | None = None
    """A release, or a file of `cpumap record`."""
    accel: Accel | None = None
    machine: str | None = None
    start: bool = True
    """Whether a QEMU that the user did not name may be started: the document's own, or that on
    PATH.
    """
    tell: Callable[[str], None] | None = None
    """Is told why a document's own emulator is not asked."""
    cache: bool = True
    """Whether a started QEMU's answers are kept in the user's cache and taken from there."""


ANY_SOURCE = Wanted()
"""Nothing is wanted: the domain's own emulator, else a recording."""


@contextmanager
def open_source(wanted: Wanted = ANY_SOURCE, request: CpuRequest = ANY_REQUEST) -> Iterator[Source]:
    """The source to ask about this request, closed in the end. Errors: as `choose_source`."""
    source = choose_source(wanted, request)
    try:
        yield source
    finally:
        source.close()


def choose_source(wanted: Wanted, request: CpuRequest) -> Source:
    """The source to ask about this request. The caller closes it. Errors: `UnknownNameError`,
    `SourceError`.
    """
    accel: Accel = wanted.accel or request.accel
    one_of(accel, get_args(Accel), "accel")
    if wanted.qemu:
        return started(wanted.qemu, accel, cache=wanted.cache)
    if wanted.qmp:
        return _attached(wanted.qmp)
    if wanted.recorded:
        return _recorded(wanted.recorded, accel, request)
    if wanted.start and request.emulator and may_run(request.emulator, wanted.tell):
        return started(request.emulator, accel, cache=wanted.cache)
    if wanted.start and (source := _on_path(wanted, request, accel)):
        return source
    return recorded_for(wanted.machine or request.machine, accel, _recorded_target(request))


def may_run(emulator: str, tell: Callable[[str], None] | None = None) -> bool:
    """Whether a document's word is enough to start its emulator; `tell` is told why not."""
    if Path(emulator).is_absolute() and not Path(emulator).exists():
        return False  # of another machine: nothing to be told
    reason = reason_not_to_run(emulator)
    if reason and tell is not None:
        tell(f"the domain's emulator {emulator} is not run: {reason}; --qemu names one to run")
    return not reason


def _on_path(wanted: Wanted, request: CpuRequest, accel: Accel) -> Source | None:
    """The QEMU on PATH, where it starts and knows the machine type."""
    target = target_of(request.arch or DEFAULT.name)
    binary = program(f"qemu-system-{target}")
    if binary is None or (accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK)):
        return None
    try:
        source = started(binary, accel, cache=wanted.cache)
    except SourceError:
        return None  # what cannot be asked knows nothing
    machine = wanted.machine or request.machine
    if machine is None or has_machine(source, machine):
        return source
    source.close()
    return None


def connected_source(hypervisor: Hypervisor, wanted: Wanted, request: CpuRequest) -> Source:
    """The QEMU that this libvirt would start for the request: started if it is on this machine,
    else its recording.

    A source that the user named comes before that. Errors: `UnknownNameError`, `SourceError`.
    """
    if wanted.qemu or wanted.qmp or wanted.recorded:
        return choose_source(wanted, request)
    accel = wanted.accel or request.accel
    arch = request.arch or DEFAULT.name
    own = request.emulator
    emulator = own or hypervisor.emulator(arch, request.machine, accel)
    # What libvirt itself names is the word of whoever named libvirt.
    runs = may_run(own, wanted.tell) if own else os.access(emulator, os.X_OK)
    if hypervisor.is_local and runs:
        return started(emulator, accel, cache=wanted.cache)
    return _recorded(str(release(hypervisor.version()).series), accel, request)


def started(binary: str, accel: Accel, *, cache: bool = True) -> Source:
    """A source that starts this QEMU binary, of PATH if it is a bare name; with `cache`, only for
    what is not in the user's cache.
    """
    if os.sep not in binary:
        binary = program(binary) or binary
    if cache:
        from cpumap.sources.cached import CachedSource
        from cpumap.sources.kept import cache_directory

        return CachedSource(binary, accel, cache_directory())
    from cpumap.sources.live import QemuSource

    return QemuSource(binary, accel)


def _attached(address: str) -> Source:
    from cpumap.qemu.qmp import Session
    from cpumap.sources.attached import AttachedSource

    session = Session.attach(address)
    try:
        return AttachedSource(session)
    except BaseException:
        session.close()
        raise


def _recorded(wanted: str, accel: Accel, request: CpuRequest) -> Source:
    from cpumap.sources.open_recording import open_recording
    from cpumap.sources.recordings import find_recording

    return open_recording(find_recording(wanted, accel, _recorded_target(request)), accel)


def _recorded_target(request: CpuRequest) -> str:
    """The target of the recorded QEMUs that run such guests. Errors: `ArchitectureError`."""
    from cpumap.sources.recordings import recordings, shipped

    guest = request.arch or DEFAULT.name
    target = target_of(arch_of(guest, request.where).name)
    if not shipped(None, target) and not recordings(None, target):
        raise ArchitectureError(
            f"no QEMU of {guest} is recorded: name one with --qemu", request.where
        )
    return target


def recorded_for(machine: str | None, accel: Accel, target: str = DEFAULT.target) -> Source:
    """The recording that answers for this machine type (a name or alias; None: any QEMU's default).

    It is that of the type's own release, whose answer starts there, else that of the next release
    which knows the type; a vendor's types are known to the vendor's QEMUs. For a type without a
    release it is the newest. Errors: `UnknownNameError`.
    """
    from cpumap.sources.open_recording import open_recording
    from cpumap.sources.recordings import knowing, recordings, shipped

    asked = machine_type(machine or "")
    for known in (shipped(accel, target), recordings(accel, target)):
        for found in knowing(known, asked.release, vendor_of(asked.name)):
            source = open_recording(found.path, accel)
            if machine is None or has_machine(source, machine):
                return source
    raise UnknownNameError(
        f"no recorded QEMU has machine type {machine!r} under {accel}: {advice(asked)}"
    )
