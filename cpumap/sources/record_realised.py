"""One QEMU's realised CPUs, made one by one and written down as differences."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from cpumap.cpu.expansion import CpuModel
from cpumap.cpu.machine_type import of_family
from cpumap.errors import SourceError
from cpumap.sources.layers import ByModel, Facts, Layer, factorise
from cpumap.sources.live import QemuSource
from cpumap.sources.record import Progress
from cpumap.sources.record_static import machine_facts, nearest_models, same_tables
from cpumap.sources.recorded_realised import SCHEMA


def record_realised(source: QemuSource, progress: Progress = lambda *_: None) -> Facts:
    """The recording of this QEMU's CPUs on its versioned machine types, checked to give back every
    one. Errors: `SourceError` when QEMU fails, or when the recording would not be lossless.
    """
    machines = of_family(source.machines(), *source.kind.families)[::-1]
    answers: dict[str, ByModel] = {}
    models = [entry.name for entry in source.definitions(machines[0].name)]
    for count, machine in enumerate(machines, 1):
        progress("machine types", count, len(machines))
        answers[machine.name] = _realised_on(source, machine.name, models)
        models = list(answers[machines[0].name])  # the boards of one family take the same models
    tables = same_tables(answers)
    every = {name: facts for found in reversed(answers.values()) for name, facts in found.items()}
    like = nearest_models(every)
    stored: Facts = {
        "schema": SCHEMA,
        "qemu": source.version,
        "package": source.build().package,
        "arch": source.arch,
        "accel": source.accel,
        "types": [entry.typename for entry in source.definitions(machines[0].name)],
        "machines": {m.name: machine_facts(m, tables) for m in source.machines()},
        "like": like,
    }
    chosen = {table: answers[table] for table in dict.fromkeys(tables.values())}
    stored["realised"] = factorise(chosen, {"like": like})
    layer = Layer(stored["realised"], like)
    for machine_name, found in answers.items():
        for name, facts in found.items():
            if layer.facts(name, tables[machine_name]) != facts:
                raise SourceError(f"recording is not lossless: {name} under {machine_name}")
    return stored


def _realised_on(source: QemuSource, machine: str, models: list[str]) -> ByModel:
    """Those of the models that start on the machine type, each with what an explicit CPU may
    name.
    """
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda model: _realised_or_none(source, machine, model), models)
        return {
            model: facts for model, facts in zip(models, answers, strict=True) if facts is not None
        }


def _realised_or_none(source: QemuSource, machine: str, model: str) -> Facts | None:
    """None for a model that the machine type does not take."""
    try:
        realised = source.realise(machine, CpuModel(model))
    except SourceError:
        return None
    named = source.kind.named
    return {
        str(name): value
        for name, value in sorted(realised.properties.items())
        if named is None or named.fullmatch(name) or name == "midr"
    }
