"""Writes domain XML as a fleet has it: many sizes, models, machine types and policies. The same
ones every time.

tools/generate_domains.py COUNT DIRECTORY
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

MODELS = (
    "Haswell-noTSX-IBRS", "Broadwell-IBRS", "Skylake-Server-IBRS", "Skylake-Client-noTSX-IBRS",
    "Cascadelake-Server", "Icelake-Server", "IvyBridge-IBRS", "SandyBridge", "Westmere", "Nehalem",
    "EPYC", "EPYC-IBPB", "EPYC-Rome",
    "EPYC-Milan", "Opteron_G5", "qemu64", "kvm64", None,
)  # fmt: skip
"""None: a domain without `<cpu>`."""

MACHINES = (
    "pc-i440fx-2.11", "pc-i440fx-3.1", "pc-i440fx-4.2", "pc-i440fx-5.2", "pc-q35-2.10",
    "pc-q35-3.1", "pc-q35-4.0", "pc-q35-5.2", "pc-q35-6.2", "pc-q35-7.2", "pc-i440fx-7.2", "q35",
    "pc",
)  # fmt: skip

FEATURES = (
    (),
    (("require", "ssbd"), ("require", "md-clear")),
    (("require", "pcid"), ("disable", "svm"), ("require", "ssbd")),
    (("disable", "x2apic"),),
    (("require", "hypervisor"), ("require", "arat"), ("disable", "rdseed"), ("optional", "invtsc")),
)

FLAVOURS = 250
"""Kinds of CPU in the fleet: guests are made from templates, a few of which most guests come
from.
"""

LIBVIRT_HEADER = """\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit {name}
or other application using the libvirt API.
-->

"""

METADATA = """\
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>{name}</nova:name>
      <nova:flavor name="m{size}"><nova:memory>{memory}</nova:memory>\
<nova:vcpus>{vcpus}</nova:vcpus></nova:flavor>
      <nova:owner><nova:user uuid="{uuid}">operator &amp; co</nova:user></nova:owner>
    </nova:instance>
  </metadata>
"""

HYPERV = """\
    <hyperv mode='custom'>
      <relaxed state='on'/>
      <vapic state='on'/>
      <spinlocks state='on' retries='8191'/>
    </hyperv>
"""

DISK = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>
      <source file='/var/lib/libvirt/images/{name}-{n}.qcow2'/>
      <target dev='vd{letter}' bus='virtio'/>
      <serial>{serial:020x}</serial>
      <address type='pci' domain='0x0000' bus='0x{bus:02x}' slot='0x{slot:02x}' function='0x0'/>
    </disk>
"""

INTERFACE = """\
    <interface type='bridge'>
      <mac address='52:54:00:{a:02x}:{b:02x}:{n:02x}'/>
      <source bridge='br{n}'/>
      <model type='virtio'/>
      <driver name='vhost' queues='{queues}'/>
      <address type='pci' domain='0x0000' bus='0x{bus:02x}' slot='0x{slot:02x}' function='0x0'/>
    </interface>
"""

ROOT_PORT = """\
    <controller type='pci' index='{n}' model='pcie-root-port'>
      <model name='pcie-root-port'/>
      <target chassis='{n}' port='0x{port:x}'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x{slot:02x}' function='0x{function:x}'/>
    </controller>
"""

TAIL = """\
    <serial type='pty'>
      <target type='isa-serial' port='0'>
        <model name='isa-serial'/>
      </target>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <memballoon model='virtio'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
"""


def domain(number: int) -> tuple[str, bytes]:
    """The file name and the document of one domain, 4 to 20 KB; every number always gives the
    same.
    """
    random = Random(number)
    name = f"{random.choice(('web', 'db', 'build', 'mail', 'win', 'test'))}-{number:06d}"
    header = LIBVIRT_HEADER.format(name=name) if random.random() < 0.7 else ""
    text = header + "".join(_parts(name, random))
    return f"{name}.xml", text.encode()


def _parts(name: str, random: Random) -> Iterator[str]:
    flavour = Random(min(int(random.expovariate(1 / 40)), FLAVOURS - 1))
    machine, model = flavour.choice(MACHINES), flavour.choice(MODELS)
    uuid = "-".join(f"{random.getrandbits(4 * width):0{width}x}" for width in (8, 4, 4, 4, 12))
    vcpus, memory = random.choice((1, 2, 4, 8)), random.choice((2, 4, 8, 16)) * 1048576
    kind = flavour.choice(("kvm", "kvm", "kvm", "qemu"))
    yield f"<domain type='{kind}'>\n  <name>{name}</name>\n  <uuid>{uuid}</uuid>\n"
    if random.random() < 0.5:
        yield METADATA.format(name=name, size=vcpus, memory=memory // 1024, vcpus=vcpus, uuid=uuid)
    yield (
        f"  <memory unit='KiB'>{memory}</memory>\n  <currentMemory unit='KiB'>"
        f"{memory}</currentMemory>\n"
    )
    yield f"  <vcpu placement='static'>{vcpus}</vcpu>\n"
    if random.random() < 0.3:
        pins = "".join(f"    <vcpupin vcpu='{n}' cpuset='{n % 2}'/>\n" for n in range(vcpus))
        yield f"  <cputune>\n{pins}  </cputune>\n"
    yield (
        f"  <os>\n    <type arch='x86_64' machine='{machine}'>hvm</type>\n    <boot "
        f"dev='hd'/>\n  </os>\n"
    )
    hyperv = HYPERV if name.startswith("win") else ""
    yield f"  <features>\n    <acpi/>\n    <apic/>\n{hyperv}  </features>\n"
    yield _cpu(model, vcpus, flavour, random)
    yield "  <clock offset='utc'>\n    <timer name='rtc' tickpolicy='catchup'/>\n"
    yield (
        "    <timer name='hpet' present='no'/>\n  </clock>\n  <on_poweroff>destroy</on_poweroff>\n"
    )
    yield "  <on_reboot>restart</on_reboot>\n  <on_crash>destroy</on_crash>\n"
    yield "  <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
    yield from _devices(name, machine, random)
    yield TAIL


def _cpu(model: str | None, vcpus: int, flavour: Random, random: Random) -> str:
    if model is None:
        return ""
    lines = [
        "  <cpu mode='custom' match='exact' check='partial'>",
        f"    <model fallback='forbid'>{model}</model>",
    ]
    if random.random() < 0.5:
        lines.append(f"    <topology sockets='1' dies='1' cores='{vcpus}' threads='1'/>")
    lines += [
        f"    <feature policy='{policy}' name='{name}'/>"
        for policy, name in flavour.choice(FEATURES)
    ]
    return "\n".join([*lines, "  </cpu>\n"])


def _devices(name: str, machine: str, random: Random) -> Iterator[str]:
    is_q35 = "q35" in machine
    slots = iter(range(3, 31))

    def place() -> dict[str, int]:
        return {"bus": next(slots) - 2, "slot": 0} if is_q35 else {"bus": 0, "slot": next(slots)}

    yield "    <controller type='usb' index='0' model='qemu-xhci'/>\n"
    if is_q35:
        yield "    <controller type='pci' index='0' model='pcie-root'/>\n"
        for n in range(1, 29):
            yield ROOT_PORT.format(n=n, port=n + 15, slot=2 + (n - 1) // 8, function=(n - 1) % 8)
    for n in range(random.randint(1, 12)):
        yield DISK.format(
            name=name, n=n, letter="abcdefghijkl"[n], serial=random.getrandbits(80), **place()
        )
    for n in range(random.randint(1, 8)):
        a, b = random.getrandbits(8), random.getrandbits(8)
        yield INTERFACE.format(a=a, b=b, n=n, queues=random.choice((1, 2, 4)), **place())


def main(count: int, directory: Path) -> None:
    """Writes so many domains into the directory, in subdirectories of a thousand."""
    for number in range(count):
        name, document = domain(number)
        folder = directory / f"{number // 1000:03d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(document)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(int(sys.argv[1]), Path(sys.argv[2]))
