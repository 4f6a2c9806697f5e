"""The proof of a CPU that is a model and options of the machine: made again, its options read, and
the device tree compared that its guest is handed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cpumap.arch.arch import Judge
from cpumap.cpu.expansion import CpuModel, Expansion
from cpumap.cpu.explicit import ExplicitCpu
from cpumap.move.of_machine import hold_of_machine
from cpumap.move.predict import Prediction
from cpumap.proof.verify import JudgedPlace, Judgement, Verification
from cpumap.qemu.device_tree import read_device_tree
from cpumap.qemu.qmp import CommandFailedError
from cpumap.sources.live import QemuSource
from cpumap.sources.platform import Platform

_REALISED: Judge = "realised"
_TREE: Judge = "device tree"

_OF_CPU = ("/cpus", "/chosen:ibm,arch-vec-5-platform-support", "/interrupt-controller")
"""What of the tree says which CPU it is: the CPUs, which MMU and interrupts they may use, and how
their threads are numbered. The rest is about buses, memory and random seeds.
"""


def verify_of_machine(
    cpu: ExplicitCpu,
    expansion: Expansion,
    platform: Platform,
    source: QemuSource,
    places: Iterable[tuple[QemuSource, str]],
) -> Verification:
    """The judgements in each place, a QEMU and one of its machine types.

    Errors: `SourceError` where the source does not start the CPU, `UnknownNameError` for a machine
    type.
    """
    where = expansion.context
    asked = CpuModel(expansion.definition.name, expansion.model.props)
    original = tree_of_cpu(source, where.machine, asked)
    judged = []
    for target, machine in places:
        moved, prediction = hold_of_machine(cpu, Platform(target, platform.given_map, machine))
        judgements = [_realised(prediction)]
        if original is not None and not prediction.refused:
            judgements += _same_tree(moved, original, target)
        place = moved.context
        judged.append(
            JudgedPlace(
                place.qemu, place.machine, place.accel, moved, prediction, tuple(judgements)
            )
        )
    return Verification(where.qemu, where.machine, where.accel, tuple(judged))


def _realised(prediction: Prediction) -> Judgement:
    """`hold_of_machine` has made it there."""
    if prediction.refused:
        return Judgement(_REALISED, "refused", reason="; ".join(prediction.refused))
    return Judgement(_REALISED, "holds")


def _same_tree(
    cpu: ExplicitCpu, original: Mapping[str, bytes], target: QemuSource
) -> Iterable[Judgement]:
    there = tree_of_cpu(target, cpu.context.machine, CpuModel(cpu.model, cpu.values))
    if there is None:
        return
    unlike = [n for n in sorted({*original, *there}) if original.get(n) != there.get(n)]
    yield Judgement(_TREE, "differs" if unlike else "holds", reason="; ".join(unlike))


def tree_of_cpu(source: QemuSource, machine: str, model: CpuModel) -> dict[str, bytes] | None:
    """What the device tree says of the CPU; None where this QEMU does not give it away (before
    7.2). Errors: `SourceError`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cpumap-") as folder,
        source.start(machine, model) as session,
    ):
        file = Path(folder, "tree")
        try:
            session.execute("dumpdtb", filename=str(file))
        except CommandFailedError:
            return None
        tree = read_device_tree(file.read_bytes())
    return {name: value for name, value in tree.items() if name.startswith(_OF_CPU)}
