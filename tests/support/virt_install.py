"""Domain XML as virt-install writes it, for more than fifty sets of options."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

COMMON = "--memory 512 --disk none --print-xml 1"
"""What every set begins with: `--print-xml` defines nothing, and 1 means the XML that the first
start has.
"""

OPTION_SETS = {
    # CPU modes
    "kvm": "--osinfo debian11 --import",
    "qemu": "--osinfo debian11 --import --virt-type qemu",
    "passthrough": "--osinfo debian11 --import --cpu host-passthrough",
    "passthrough-cache": "--osinfo debian11 --import --cpu host-passthrough,cache.mode=passthrough",
    "passthrough-less": "--osinfo debian11 --import --cpu "
    "host-passthrough,migratable=off,disable=vmx",
    "passthrough-qemu": "--osinfo debian11 --import --virt-type qemu --cpu "
    "host-passthrough,check=none",
    "maximum": "--osinfo debian11 --import --virt-type qemu --cpu mode=maximum",
    "maximum-less": "--osinfo debian11 --import --virt-type qemu --cpu "
    "mode=maximum,migratable=on,disable=la57",
    "host-model": "--osinfo debian11 --import --cpu host-model",
    "host-model-less": "--osinfo debian11 --import --cpu "
    "host-model,model.fallback=forbid,disable=erms",
    "host-model-only": "--osinfo debian11 --import --cpu host-model-only",
    # Named models, features and their policies
    "model": "--osinfo debian11 --import --cpu Haswell",
    "model-insecure": "--osinfo debian11 --import --cpu Skylake-Server,secure=off",
    "policies": "--osinfo debian11 --import --cpu "
    "Haswell,+x2apic,-hle,require=pcid,optional=abm,forbid=svm",
    "vendor": "--osinfo debian11 --import --cpu Haswell-noTSX,vendor=Intel",
    "vendor-id": "--osinfo debian11 --import --cpu EPYC,model.vendor_id=KVMKVMKVMKVM",
    "match-minimum": "--osinfo debian11 --import --cpu Penryn,match=minimum",
    "match-strict": "--osinfo debian11 --import --cpu Westmere,match=strict,check=none",
    "check-full": "--osinfo debian11 --import --cpu IvyBridge,check=full",
    "amd": "--osinfo centos7.0 --import --cpu EPYC-Rome,+topoext --vcpus "
    "8,sockets=1,cores=4,threads=2",
    "32-bit": "--osinfo centos5.0 --import --virt-type qemu --cpu coreduo --machine pc",
    "qemu64": "--osinfo generic --import --virt-type qemu --cpu qemu64,+sse4.1",
    # What else of <cpu> and around it ends in -cpu, or in what a guest reads
    "topology": "--osinfo debian11 --import --cpu Broadwell --vcpus "
    "12,sockets=1,dies=2,cores=3,threads=2",
    "hotplug": "--osinfo debian11 --import --cpu Nehalem --vcpus 2,maxvcpus=8",
    "cache": "--osinfo debian11 --import --cpu Haswell,cache.mode=emulate,cache.level=3",
    "cache-off": "--osinfo debian11 --import --cpu Haswell,cache.mode=disable",
    "address-bits": "--osinfo debian11 --import --cpu "
    "Haswell,xpath1.set=./maxphysaddr/@mode,xpath1.value=emulate,"
    "xpath2.set=./maxphysaddr/@bits,xpath2.value=42",
    "numa": "--osinfo debian11 --import --vcpus 4 --cpu Skylake-Client,"
    "numa.cell0.id=0,numa.cell0.cpus=0-1,numa.cell0.memory=262144,"
    "numa.cell1.id=1,numa.cell1.cpus=2-3,numa.cell1.memory=262144",
    "numa-distances": "--osinfo debian11 --import --vcpus 2 --cpu EPYC-Milan,"
    "numa.cell0.id=0,numa.cell0.cpus=0,numa.cell0.memory=262144,"
    "numa.cell0.distances.sibling0.id=0,numa.cell0.distances.sibling0.value=10,"
    "numa.cell0.distances.sibling1.id=1,numa.cell0.distances.sibling1.value=21,"
    "numa.cell1.id=1,numa.cell1.cpus=1,numa.cell1.memory=262144,"
    "numa.cell1.distances.sibling0.id=0,numa.cell1.distances.sibling0.value=21,"
    "numa.cell1.distances.sibling1.id=1,numa.cell1.distances.sibling1.value=10",
    "pinned": "--osinfo debian11 --import --cpu Haswell --vcpus 2,cpuset=0-1 "
    "--cputune vcpupin0.vcpu=0,vcpupin0.cpuset=0",
    "pmu-off": "--osinfo debian11 --import --cpu Haswell --features pmu.state=off",
    "hyperv": "--osinfo win10 --pxe --cpu Skylake-Client --features "
    "hyperv.relaxed.state=on,hyperv.vapic.state=on,"
    "hyperv.spinlocks.state=on,hyperv.spinlocks.retries=8191,hyperv.synic.state=on",
    "hyperv-reset": "--osinfo win7 --pxe --cpu Haswell --features hyperv.reset.state=on",
    "kvm-hidden": "--osinfo win10 --pxe --cpu EPYC --features "
    "kvm.hidden.state=on,kvm.poll-control.state=on",
    "hint-dedicated": "--osinfo debian11 --import --cpu Haswell --features "
    "kvm.hint-dedicated.state=on",
    "pvspinlock": "--osinfo debian11 --import --cpu SandyBridge --features "
    "pvspinlock.state=off,apic.eoi=on",
    "clock": "--osinfo win2k19 --pxe --cpu Cascadelake-Server --clock offset=localtime,"
    "timer0.name=hypervclock,timer0.present=yes,timer1.name=tsc,timer1.frequency=2000000000,"
    "timer2.name=kvmclock,timer2.present=no",
    # Machine types
    "q35": "--osinfo fedora37 --import --cpu Haswell --machine pc-q35-5.2",
    "q35-old": "--osinfo rhel8.0 --import --cpu Skylake-Server --machine pc-q35-2.11",
    "pc": "--osinfo ubuntu20.04 --import --cpu Haswell --machine pc",
    "pc-old": "--osinfo centos7.0 --import --cpu Opteron_G3 --machine pc-i440fx-3.1 --virt-type "
    "qemu",
    "i686": "--osinfo debian11 --import --arch i686 --cpu pentium3 --machine pc --virt-type qemu",
    "pxe": "--osinfo generic --pxe --hvm --cpu kvm64",
    # Around the CPU
    "uefi": "--osinfo win11 --pxe --cpu Icelake-Server --features smm.state=on --boot "
    "loader=/boot/fd,"
    "loader.readonly=yes,loader.type=pflash,loader.secure=yes,nvram.template=/boot/vars",
    "kernel": "--osinfo debian11 --cpu Denverton --boot "
    "\"kernel=/boot/k,initrd=/boot/i,kernel_args=a='1' b=<2> & c\"",
    "disks": "--osinfo debian11 --import --cpu Haswell --controller scsi,model=virtio-scsi "
    "--disk /dev/null,device=disk,bus=scsi,format=raw --disk device=cdrom,bus=sata",
    "networks": "--osinfo debian11 --import --cpu EPYC-IBPB --network type=user,model=e1000e "
    "--network network=default",
    "graphics": "--osinfo debian11 --import --cpu Haswell --graphics vnc,listen=0.0.0.0 --video "
    "qxl --sound none",
    "headless": "--osinfo generic --import --network none --graphics none --memballoon none --rng "
    "none --cpu Conroe",
    "commandline": "--osinfo debian11 --import --cpu Haswell --qemu-commandline='-fw_cfg "
    "name=opt/a,string=b'",
    "metadata": "--osinfo debian11 --import --cpu Haswell --metadata title='A & B "
    "<c>',description='größer'",
    "memory": "--osinfo debian11 --import --cpu Haswell --memorybacking "
    "hugepages=on,access.mode=shared --iothreads 2",
    "seclabel": "--osinfo debian11 --import --cpu Haswell --seclabel type=none --resource "
    "partition=/machine",
    "iommu": "--osinfo debian11 --import --cpu Haswell --iommu model=intel,driver.intremap=on "
    "--features ioapic.driver=qemu",
}
"""By the domain's name: varied in the CPU first, then in all that stands around it."""

ALL_AT_ONCE = """
import json, os, sys
sys.path.insert(0, "/usr/share/virt-manager")
from virtinst import OSDB, virtinstall
OSDB.list_os()
for name, words in json.load(sys.stdin).items():
    if not os.fork():
        os.dup2(os.open(f"{name}.xml", os.O_WRONLY | os.O_CREAT | os.O_EXCL), 1)
        sys.argv = ["virt-install", *words]
        virtinstall.runcli()
    if os.wait()[1]:
        sys.exit(f"{name}: virt-install failed")
"""
"""What /usr/bin/virt-install does, in a process for each set; its libraries and data are loaded
once.
"""


def print_all(uri: str, directory: Path) -> None:
    """Writes each set's XML into the directory, as virt-install prints it on this libvirt."""
    if shutil.which("virt-install") is None:
        pytest.fail("virt-install is not installed (tools/setup-test installs it)", pytrace=False)
    words = {
        name: ["--connect", uri, "--name", name, *shlex.split(COMMON), *shlex.split(options)]
        for name, options in OPTION_SETS.items()
    }
    done = subprocess.run(
        ["/usr/bin/python3", "-c", ALL_AT_ONCE],
        input=json.dumps(words),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
