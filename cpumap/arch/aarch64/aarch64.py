"""aarch64: a CPU is a model, and the few properties of it that a guest can tell."""

from __future__ import annotations

import re

from cpumap.arch.arch import Arch
from cpumap.cpu.names import FeatureName, PropertyName

_VECTOR_LENGTHS = tuple(f"sve{bits}" for bits in range(128, 2049, 128))


AARCH64 = Arch(
    name="aarch64",
    target="aarch64",
    cpu_type="arm-cpu",
    families=("virt",),
    default_model="cortex-a15",
    host_passthrough={"kvm": "host", "tcg": "max"},
    # query-cpu-model-expansion shows neither lpa2 nor sme nor cntfrq: the realised CPU does.
    named=re.compile(r"pmu|lpa2|cntfrq|pauth.*|sve\d*|sme\w*|backcompat-.*"),
    plus_minus=False,
    cpuid=False,
    # The machine type sets these itself, whatever -cpu says (measured on 5.2 to 11.1).
    overruled={PropertyName("pmu"): "2.6", PropertyName("lpa2"): "6.2"},
    independent=frozenset(map(PropertyName, ("pmu", "lpa2", "cntfrq"))),
    any_feature=True,
    policies="dropped",
    # The features of libvirt's CPU map (9.0).
    libvirt_features=frozenset(map(FeatureName, ("sve", *_VECTOR_LENGTHS))),
)
