"""`baseline` of a pool: the CPU that every host can run with one QEMU, and what that costs."""

from __future__ import annotations

import argparse

from cpumap.cli.sourcing import source_for
from cpumap.cpu.host import HostCpu
from cpumap.hosts.described import described
from cpumap.hosts.read import as_host
from cpumap.libvirt.rules.baseline import Common
from cpumap.libvirt.rules.decode import Usable
from cpumap.runnable.pool import Pool, models_of, proven_pool
from cpumap.sources.platform import Platform
from cpumap.system.say import say


def pool_of(arguments: argparse.Namespace, common: Common, models: Usable | None) -> Pool:
    """The pool of the hosts described, with one of the models, proven with the QEMU that the
    options name.
    """
    given = [one if isinstance(one, HostCpu) else as_host(one) for one in common.cpus]
    hosts = [described(one, common.cpu_map, one.where) for one in given]
    cpu = common.cpu(models)
    arguments.host = arguments.files[0]  # they are hosts: the vendor is theirs
    with source_for(arguments, cpu) as source:
        platform = Platform(source, common.cpu_map, arguments.machine)
        there = models_of(platform, models)
        if cpu.model not in there:
            cpu = common.cpu(there)
        return proven_pool(platform, hosts, cpu)


def tell_pool(found: Pool, explain: bool) -> None:
    """Says on stderr what the pool's CPU leaves out, and what each host gives up for it."""
    if found.disabled:
        names = ", ".join(found.disabled)
        say(f"disabled, since not every host's QEMU can give them: {names}")
    if not explain:
        return
    for member in found.members:
        say(f"{member.name} gives up {', '.join(member.gives_up) or 'nothing'}")
    dearest = found.dearest
    if dearest is None:
        say("no single host costs the pool a feature")
    else:
        say(f"{dearest.name} costs the pool most: without it, also {', '.join(dearest.costs)}")
