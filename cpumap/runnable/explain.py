"""All that a text names, explained: features, CPU models, machine types, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cpumap.cpu.bits import bits_words
from cpumap.cpu.names import Accel
from cpumap.libvirt.cpu_map.map import CpuMap
from cpumap.runnable.explain_feature import Explained, explain_feature
from cpumap.runnable.explain_names import (
    ExplainedMachine,
    ExplainedModel,
    explain_machine,
    explain_model,
)
from cpumap.runnable.lookup import Known, where_to_look
from cpumap.runnable.messages import Advice, Mention, read_messages


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a text names, and what its messages say beside."""

    features: tuple[Explained, ...] = ()
    models: tuple[ExplainedModel, ...] = ()
    machines: tuple[ExplainedMachine, ...] = ()
    stories: tuple[Advice, ...] = ()
    """Messages that name nothing, but say something."""
    linux: tuple[str, ...] = ()
    """Flags of Linux's own, which are no features of a guest's CPU."""
    unknown: tuple[str, ...] = ()
    """Names that nobody knows, and bits that have none."""

    @property
    def says_something(self) -> bool:
        """Whether anything in the text was understood."""
        found = (self.features, self.models, self.machines, self.stories, self.linux)
        return any(found)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "features": [one.to_json() for one in self.features],
            "models": [one.to_json() for one in self.models],
            "machines": [one.to_json() for one in self.machines],
            "messages": [asdict(story) for story in self.stories],
            "linux-only": list(self.linux),
            "unknown": list(self.unknown),
        }


def explain(
    text: str, cpu_map: CpuMap, accel: Accel = "kvm", recorded: str | None = None
) -> Explanation:
    """All that a text names, explained: a list of names, or lines of somebody's log.

    Models and machine types are those of the shipped recordings, or of the release `recorded`.
    Errors: `UnknownNameError` for a release that is not recorded.
    """
    reading = read_messages(text)
    known = where_to_look(cpu_map, accel, recorded)
    features: dict[str, Explained] = {}
    models: list[ExplainedModel] = []
    machines: list[ExplainedMachine] = []
    linux: list[str] = []
    unknown: list[str] = []
    for mention in reading.mentions:
        if found := _features(mention, known):
            for one in found:
                features.setdefault(one.feature.name, one)
        elif model := _model(mention, known):
            models.append(model)
        elif machine := _machine(mention, known):
            machines.append(machine)
        else:
            (linux if known.is_linux_only(mention.name) else unknown).append(_words(mention))
    found_features = tuple(features.values())
    return Explanation(
        found_features,
        tuple(models),
        tuple(machines),
        reading.stories,
        tuple(linux),
        tuple(dict.fromkeys(unknown)),
    )


def _features(mention: Mention, known: Known) -> list[Explained]:
    """The features that a mention is: by its name, else by where it sits."""
    if mention.subject == "model":
        return []
    feature = known.feature(mention.name) if mention.name else None
    found = [feature] if feature else known.features_at(mention.bits)
    return [explain_feature(one, mention.name, mention.advice, known) for one in found]


def _model(mention: Mention, known: Known) -> ExplainedModel | None:
    if mention.subject not in ("model", "word"):
        return None
    return explain_model(mention.name, mention.advice, known)


def _machine(mention: Mention, known: Known) -> ExplainedMachine | None:
    return explain_machine(mention.name, known) if mention.subject == "word" else None


def _words(mention: Mention) -> str:
    """The mention's name, or its place where it has none."""
    if mention.name or not mention.bits:
        return mention.name
    leaf, subleaf, register, number = mention.bits[0]
    return bits_words((leaf, subleaf, register), 1 << number)
