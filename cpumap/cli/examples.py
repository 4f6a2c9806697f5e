"""The examples that a command's help ends in; tests run them, in data/examples."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A command line, and what it is for."""

    about: str
    line: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "translate": (
        Example("the CPU as QEMU's arguments", "cpumap translate web-server.xml --recorded 10.0"),
        Example(
            "the domain XML for a newer QEMU, refused where the CPU cannot stay the same",
            "cpumap translate web-server.xml --recorded 7.2 --target-qemu 10.0 --format xml",
        ),
        Example(
            "what differs from what libvirt would pass, and why",
            "cpumap translate web-server.xml --recorded 10.0 --summary",
        ),
    ),
    "convert": (
        Example(
            "what would become of each guest, and of how many",
            "cpumap convert . --recorded 10.0 --dry-run --stat",
        ),
        Example(
            "what would change, the long list of features folded",
            "cpumap convert web-server.xml --recorded 10.0 --dry-run --diff",
        ),
        Example(
            "the new documents below a directory of their own",
            "cpumap convert web-server.xml windows.xml --recorded 10.0 --output-dir new",
        ),
    ),
    "plan": (
        Example(
            "what an upgrade of QEMU does to these guests",
            "cpumap plan web-server.xml --to-qemu 10.0",
        ),
    ),
    "lock": (
        Example("every guest's CPU written down", "cpumap lock . --recorded 10.0 -o fleet.lock"),
    ),
    "audit": (
        Example(
            "which guests would see another CPU in QEMU 11.1 than the one locked",
            "cpumap lock . --recorded 10.0 -o fleet.lock\n"
            "cpumap audit fleet.lock --recorded 11.1 --report audit.html",
        ),
        Example(
            "the same for Prometheus' node exporter",
            "cpumap lock . --recorded 10.0 -o fleet.lock\n"
            "cpumap audit fleet.lock --recorded 11.1 --metrics cpumap.prom",
        ),
    ),
    "expand": (
        Example(
            "every property of a model in QEMU 10.0",
            "cpumap expand Haswell,-rtm --recorded 10.0 --accel kvm",
        ),
    ),
    "dump": (
        Example(
            "a configuration file that recreates the CPU",
            "cpumap dump Haswell-v4 --recorded 10.0 --accel kvm",
        ),
    ),
    "models": (
        Example("the models of QEMU 10.0 under KVM", "cpumap models --recorded 10.0 --accel kvm"),
        Example("the recordings that there are", "cpumap models --recorded list"),
    ),
    "machines": (
        Example("the machine types of QEMU 10.0", "cpumap machines --recorded 10.0 --accel kvm"),
    ),
    "host": (
        Example(
            "the best model that emulation can give, and what to add to it",
            "cpumap host --recorded 10.0 --accel tcg --kind best",
        ),
    ),
    "check": (
        Example(
            "whether a guest can run on a host of which there is a description",
            "cpumap check web-server.xml --recorded 10.0 --host hosts/westmere.xml",
        ),
    ),
    "compare": (
        Example(
            "whether a host can provide a guest's CPU, and why not",
            "cpumap compare hosts/westmere.xml old-amd.xml --error",
        ),
    ),
    "baseline": (
        Example(
            "the CPU that hosts and guests have in common",
            "cpumap baseline hosts/westmere.xml web-server.xml",
        ),
    ),
    "update": (
        Example(
            "a guest's optional features, as that host decides them",
            "cpumap update hosts/westmere.xml old-amd.xml",
        ),
    ),
    "decode": (
        Example(
            "what `cpuid -r`, `expand --type guest` or virsh wrote becomes a <cpu>",
            "cpumap decode --as guest hosts/nehalem.cpudata",
        ),
    ),
    "explain": (
        Example(
            "a message of QEMU's log, as it is",
            'cpumap explain "host doesn\'t support requested feature: CPUID.07H:EBX.hle [bit 4]"',
        ),
        Example("a feature, a model, a machine type", "cpumap explain pclmulqdq EPYC pc-q35-7.2"),
    ),
    "verify": (
        Example(
            "whether the CPU is the same under every machine type; starts QEMU",
            "cpumap verify web-server.xml --accel tcg --qemu qemu-system-x86_64 --all-machines",
        ),
    ),
    "diff": (
        Example(
            "what a machine type changes in a model",
            "cpumap diff Haswell@pc-q35-2.4 Haswell@pc-q35-7.2 --recorded 7.2 --accel kvm",
        ),
    ),
    "hook": (
        Example(
            "what the policy is, and how it judges a guest",
            "cpumap hook libvirt --check web-server.xml",
        ),
        Example("libvirt's hook put in its place", "cpumap hook libvirt --install --hooks-dir ."),
    ),
    "measure": (
        Example(
            "what guests read on two QEMUs of one's own; starts both",
            "cpumap measure --qemu qemu-system-x86_64 --qemu /opt/qemu/bin/qemu-system-x86_64",
        ),
    ),
    "record": (
        Example(
            "a QEMU's answers in one file, for `--recorded FILE` elsewhere; starts QEMU",
            "cpumap record --qemu qemu-system-x86_64 -o recordings",
        ),
    ),
}


def examples_of(command: str) -> str:
    """The examples of this command as its help shows them; empty where it has none."""
    lines = []
    for example in EXAMPLES.get(command, ()):
        lines.append(f"  # {example.about}")
        lines += [f"  {line}" for line in example.line.splitlines()]
    return "examples:\n" + "\n".join(lines) + "\n\n" if lines else ""
