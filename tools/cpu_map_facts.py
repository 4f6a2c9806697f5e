"""What QEMU cannot tell about a CPU map: libvirt's spellings, silicon signatures, bits without a
QEMU property.
"""

from __future__ import annotations

FIRST_PUBLISHED = (
    "libvirt wrote it this way before QEMU settled on '-', and domain XML keeps its spellings"
)

LIBVIRT_SPELLINGS: dict[str, tuple[str, str]] = {
    "cmp-legacy": ("cmp_legacy", FIRST_PUBLISHED),
    "ds-cpl": ("ds_cpl", FIRST_PUBLISHED),
    "fxsr-opt": ("fxsr_opt", FIRST_PUBLISHED),
    "lahf-lm": ("lahf_lm", FIRST_PUBLISHED),
    "nodeid-msr": ("nodeid_msr", FIRST_PUBLISHED),
    "perfctr-core": ("perfctr_core", FIRST_PUBLISHED),
    "perfctr-nb": ("perfctr_nb", FIRST_PUBLISHED),
    "tsc-adjust": ("tsc_adjust", FIRST_PUBLISHED),
    "pclmulqdq": (
        "pclmuldq",
        "a misspelling that both projects once had; QEMU made it an alias, libvirt kept it",
    ),
}
"""QEMU's canonical property → libvirt's feature name and why it is another one. All others are
spelled alike.
"""

LINUX_SPELLINGS: dict[str, str] = {
    "avx512bitalg": "avx512_bitalg",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "cmt": "cqm",
    "core-capability": "core_capabilities",
    "cr8legacy": "cr8_legacy",
    "ds": "dts",
    "ibpb": "ibpb",
    "mbm_local": "cqm_mbm_local",
    "mbm_total": "cqm_mbm_total",
    "pause-filter": "pausefilter",
    "rdctl-no": "rdctl_no",
    "tsc-deadline": "tsc_deadline_timer",
    "tsx-ldtrk": "tsxldtrk",
}
"""Feature → its flag in /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h) where `_` for `-`
does not give it.
"""

BEYOND_QEMU: dict[str, tuple[int, int, str, int, str]] = {
    "osxsave": (
        0x1,
        0,
        "ecx",
        27,
        "shows CR4.OSXSAVE, which the guest's kernel sets (Intel SDM vol. 2, CPUID)",
    ),
    "ospke": (
        0x7,
        0,
        "ecx",
        4,
        "shows CR4.PKE, which the guest's kernel sets (Intel SDM vol. 2, CPUID)",
    ),
    "cmt": (
        0x7,
        0,
        "ebx",
        12,
        "resource monitoring, never given to a guest (Intel SDM vol. 3, 18.18)",
    ),
    "pconfig": (
        0x7,
        0,
        "edx",
        18,
        "memory encryption keys, never given to a guest (Intel SDM vol. 2, PCONFIG)",
    ),
    "mbm_total": (
        0xF,
        1,
        "edx",
        1,
        "resource monitoring, never given to a guest (Intel SDM vol. 3, 18.18)",
    ),
    "mbm_local": (
        0xF,
        1,
        "edx",
        2,
        "resource monitoring, never given to a guest (Intel SDM vol. 3, 18.18)",
    ),
    "cvt16": (0x80000001, 0, "ecx", 18, "announced for AMD's SSE5, never built; old maps name it"),
}
"""Features of libvirt that QEMU has no property for: leaf, subleaf, register, bit, and why there
is none.
"""

VENDORS = {
    "Intel": "GenuineIntel",
    "AMD": "AuthenticAMD",
    "Hygon": "HygonGenuine",
    "Centaur": "CentaurHauls",
    "Zhaoxin": "  Shanghai  ",
}
"""libvirt's name of a vendor (Centaur and Zhaoxin: its maker's) → the string of CPUID leaf 0."""

WITHOUT_VENDOR = frozenset(
    {"486", "pentium", "pentium2", "pentium3", "qemu32", "qemu64", "kvm32", "kvm64"},
)
"""Models that stand for no silicon, or for what every vendor built: a host of any vendor can
give them.
"""

WITHOUT_SIGNATURE = WITHOUT_VENDOR | {"athlon", "phenom", "coreduo", "core2duo", "n270"}
"""Models whose numbers in QEMU are no silicon's, or too old to be looked for first."""

SILICON: dict[str, tuple[tuple[int, int], ...]] = {
    "Conroe": ((6, 15), (6, 22)),
    "Penryn": ((6, 23), (6, 29)),
    "Nehalem": ((6, 26), (6, 30), (6, 31), (6, 46)),
    "Westmere": ((6, 37), (6, 44), (6, 47)),
    "SandyBridge": ((6, 42), (6, 45)),
    "IvyBridge": ((6, 58), (6, 62)),
    "Haswell": ((6, 60), (6, 63), (6, 69), (6, 70)),
    "Broadwell": ((6, 61), (6, 71), (6, 79), (6, 86)),
    "Skylake-Client": ((6, 78), (6, 94), (6, 142), (6, 158)),
    "Icelake-Client": ((6, 125), (6, 126)),
    "Icelake-Server": ((6, 106), (6, 108)),
    "GraniteRapids": ((6, 173), (6, 174)),
}
"""Family and model numbers that one microarchitecture was sold under (Linux:
arch/x86/include/asm/intel-family.h).

QEMU's model carries one of them; where only that one exists, QEMU's answer is enough.
"""

NOT_SILICON = {("Icelake-Server", (6, 134))}
"""Numbers of QEMU's that the silicon never had: 134 is Snowridge's, Icelake-Server was sold as
106 and 108.
"""

STEPPINGS = {"Skylake-Server": "0-4", "Cascadelake-Server": "5-7", "Cooperlake": "10-11"}
"""Three microarchitectures were sold as family 6 model 85; the stepping tells them apart
(Intel's microcode notes).
"""

TABLE_ACCEL_DIFFERS = frozenset({"vme"})
"""Features that tcg switches off in every model (tcg cannot give them): the model's own value is
what KVM shows.
"""

NOT_THE_MODELS = frozenset({"hypervisor"})
"""Features on in every model: that the CPU is a guest's is no property of the silicon it stands
for.
"""

NEEDS = {"vmx-": "vmx"}
"""Features by the beginning of their names → the feature without which a guest cannot see them
(Intel SDM, A.1).
"""

ALLOWED_ONE_MSRS = frozenset({0x481, 0x482, 0x483, 0x484, 0x48B, 0x48D, 0x48E, 0x48F, 0x490})
"""VMX capability MSRs whose high half says what may be 1 (Intel SDM, A.3 to A.5); QEMU counts
bits within that half.
"""

PARAVIRTUAL = range(0x40000000, 0x50000000)
"""CPUID leaves that belong to the hypervisor and not to the CPU."""

LEAVES = {
    (0x1, 0): "versions and basic features",
    (0x6, 0): "thermal and power",
    (0x7, 0): "structured extended features",
    (0x7, 1): "structured extended features, second page",
    (0x7, 2): "structured extended features, third page",
    (0xD, 0): "XSAVE components",
    (0xD, 1): "XSAVE",
    (0xF, 1): "resource monitoring",
    (0x12, 0): "SGX",
    (0x12, 1): "SGX attributes",
    (0x14, 0): "processor trace",
    (0x1E, 1): "AMX",
    (0x24, 0): "AVX10",
    (0x24, 1): "AVX10, second page",
    (0x29, 0): "APX",
    (0x80000001, 0): "extended features",
    (0x80000007, 0): "advanced power management",
    (0x80000008, 0): "address sizes and speculation control",
    (0x8000000A, 0): "SVM",
    (0x80000021, 0): "extended features, second page",
    (0x80000022, 0): "performance monitoring",
    (0xC0000001, 0): "Centaur extended features",
}
"""What a CPUID leaf is about: the headings of the features file."""
