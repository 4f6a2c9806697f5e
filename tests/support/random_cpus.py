"""CPUs made by chance, always the same for a seed: questions to ask libvirt and `rules` alike."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cpumap.arch.x86.cpuid import CpuidData
from cpumap.cpu.host import Identity
from cpumap.cpu.names import FeatureName
from cpumap.libvirt.cpu_map.entries import Model
from cpumap.libvirt.cpu_map.map import CpuMap
from tests.support.cpuid_words import data_of, with_identity

POLICIES = ("force", "require", "optional", "disable", "forbid")
SPECIAL = tuple(
    FeatureName(name)
    for name in ("invtsc", "xsaves", "cmt", "osxsave", "monitor", "mpx", "intel-pt", "hle", "rtm")
)
MATCHES = ("", " match='exact'", " match='minimum'", " match='strict'")


@dataclass(frozen=True)
class RandomCpus:
    """CPUs of one map's models and features."""

    cpu_map: CpuMap
    seed: random.Random

    def host(self, model: str | None = None) -> str:
        """A host's `<cpu>`: a model, perhaps a vendor and numbers, and some features more."""
        name = model or self._model().name
        vendor = self.cpu_map.models[name].vendor or "Intel"
        inside = self._perhaps(f"<vendor>{vendor}</vendor>") + self._perhaps(self._signature(name))
        count = self.seed.choice([0, 0, 1, 3, 10])
        features = "".join(f"<feature name='{f}'/>" for f in self._features(count))
        return f"<cpu><arch>x86_64</arch><model>{name}</model>{inside}{features}</cpu>"

    def hosts(self) -> list[str]:
        """One to three hosts, often of the same model."""
        model = self._model().name if self.seed.random() < 0.4 else None
        return [self.host(model) for _ in range(self.seed.choice([1, 2, 2, 3]))]

    def guest(self, near: Sequence[FeatureName] = (), model: str | None = None) -> str:
        """A guest's `<cpu>`; of this model and with some of these features, if they are given."""
        name = model or self._model().name
        vendor = self.seed.choice(["", "", "<vendor>Intel</vendor>", "<vendor>AMD</vendor>"])
        count = self.seed.choice([0, 0, 1, 2, 5])
        chosen = self._features(count)
        if near:
            chosen = self.seed.sample(sorted(near), min(count, len(near)))
        inside = "".join(
            f"<feature policy='{self.seed.choice(POLICIES)}' name='{feature}'/>"
            for feature in chosen
        )
        match = self.seed.choice(MATCHES)
        return f"<cpu{match}><model>{name}</model>{vendor}{inside}</cpu>"

    def host_model(self) -> str:
        """A CPU as domain capabilities describe a host: nothing but required and disabled."""
        xml = re.sub(r"<cpu[^>]*>", "<cpu match='exact'>", self.guest(), count=1)
        return re.sub(
            "policy='(force|optional|forbid)'",
            lambda _: f"policy='{self.seed.choice(('require', 'disable'))}'",
            xml,
        )

    def relative(self) -> str:
        """A guest's `<cpu>`, half of them host-model."""
        guest = self.guest()
        if self.seed.random() < 0.5:
            return guest
        model = r"<cpu[^>]*><model>[^<]*</model>(<vendor>[^<]*</vendor>)?"
        return re.sub(model, "<cpu mode='host-model'>", guest)

    def usable(self) -> dict[str, list[str] | None]:
        """A hypervisor's models, each with what keeps it from being run, or None."""
        names = list(self.cpu_map.models)
        chosen = self.seed.sample(names, self.seed.randrange(len(names) // 2, len(names) + 1))
        return {name: self._blockers(name) for name in sorted(chosen)}

    def _blockers(self, model: str) -> list[str] | None:
        if self.seed.random() < 0.4:
            return None
        own = sorted(self.cpu_map.models[model].features)
        more = self._features(self.seed.choice([0, 0, 1]))
        blocked = self.seed.sample(own, min(len(own), self.seed.choice([1, 2, 6])))
        return list(dict.fromkeys(map(str, [*blocked, *more])))

    def data(self) -> CpuidData:
        """CPUID data near to one model's: its features, some changed, and a model's numbers."""
        model = self._model()
        features = set(model.features)
        for name in self.seed.sample(sorted(features), min(len(features), self._changes())):
            features.remove(name)
        features.update(self._features(self._changes()))
        vendor = self.cpu_map.vendors[model.vendor or self.seed.choice(["Intel", "AMD"])]
        return with_identity(data_of(features, self.cpu_map), vendor.string, self._numbers(model))

    def _changes(self) -> int:
        return self.seed.choice([0, 0, 1, 2, 5, 15])

    def _model(self) -> Model:
        return self.cpu_map.models[self.seed.choice(list(self.cpu_map.models))]

    def _features(self, count: int) -> list[FeatureName]:
        """So many features; those which libvirt treats in a way of their own more often."""
        chosen = self.seed.sample(list(self.cpu_map.features), count)
        special = [name for name in SPECIAL if name in self.cpu_map.features]
        more = self.seed.sample(special, 1 if count and self.seed.random() < 0.4 else 0)
        return list(dict.fromkeys([*chosen, *more]))

    def _perhaps(self, text: str) -> str:
        return text if self.seed.random() < 0.5 else ""

    def _numbers(self, model: Model) -> Identity:
        """The model's own numbers mostly, else those of any."""
        signatures = model.signatures if self.seed.random() < 0.8 else ()
        signatures = signatures or self._model().signatures
        if not signatures:
            return Identity(6, self.seed.randrange(256), self.seed.randrange(16))
        signature = self.seed.choice(signatures)
        steppings = sorted(signature.steppings or range(16))
        return Identity(signature.family, signature.model, self.seed.choice(steppings))

    def _signature(self, name: str) -> str:
        numbers = self._numbers(self.cpu_map.models[name])
        return (
            f"<signature family='{numbers.family}' model='{numbers.model}' "
            f"stepping='{numbers.stepping}'/>"
        )
