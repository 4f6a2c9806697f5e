"""`explain` on what people paste: messages of QEMU 5.2 to 11.1, libvirt, KubeVirt, Nova,
/proc/cpuinfo.
"""

from __future__ import annotations

import json

import pytest

from cpumap.cli.main import main
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.runnable.explain import explain

CPU_MAP = load_cpu_map()

HT = "ht"
MESSAGES: tuple[tuple[str, str], ...] = (
    # QEMU: what it cannot give, in its releases' spellings
    ("qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit "
     "4]", "hle"),
    ("warning: host doesn't support requested feature: CPUID.80000001H:ECX.svm [bit 2]", "svm"),
    ("warning: TCG doesn't support requested feature: CPUID.01H:ECX.x2apic [bit 21]", "x2apic"),
    ("warning: TCG doesn't support requested feature: CPUID[eax=07h,ecx=00h].EBX.rtm [bit 11]",
     "rtm"),
    ("warning: host doesn't support requested feature: CPUID[eax=80000007h].EDX.invtsc [bit 8]",
     "invtsc"),
    ("warning: host doesn't support requested feature: MSR(48DH).vmx-posted-intr [bit 7]",
     "vmx-posted-intr"),
    ("warning: host doesn't support requested feature: MSR(10AH).rdctl-no [bit 0]", "rdctl-no"),
    ("warning: host doesn't support requested feature: MSR(10Ah) [bit 3]", "skip-l1dfl-vmentry"),
    ("warning: host doesn't support requested feature: CPUID.07H:EBX [bit 16]", "avx512f"),
    ("warning: TCG doesn't support requested feature: CPUID.01H:EDX.ht [bit 28]", "ht"),
    ("warning: This feature depends on other features that were not requested: CPUID.07H:ECX.vaes "
     "[bit 9]", "vaes"),
    ("warning: This feature depends on other features that were not requested: "
     "CPUID.0DH:EAX.xsavec [bit 1]", "xsavec"),
    # QEMU: names that it does not have
    ("qemu-system-x86_64: can't apply global Haswell-x86_64-cpu.foo=on: Property "
     "'Haswell-x86_64-cpu.foo' not found", "?foo"),
    ("qemu-system-x86_64: can't apply global EPYC-x86_64-cpu.vgif=on: Property "
     "'EPYC-x86_64-cpu.vgif' not found", "vgif"),
    ("Property 'Haswell-x86_64-cpu.avx10' not found", "avx10"),
    ("qemu-system-i386: Property 'qemu32-i386-cpu.avx2' not found", "avx2"),
    ("qemu-system-x86_64: Property '.avx512-fp16' not found", "avx512-fp16"),
    ("qemu-system-x86_64: unable to find CPU model 'SapphireRapids'", "=SapphireRapids"),
    ("qemu-system-x86_64: unable to find CPU model 'NoSuchModel'", "?NoSuchModel"),
    # QEMU: other refusals
    ("error: State blocked by non-migratable CPU device (invtsc flag)", "invtsc"),
    ("State blocked by non-migratable CPU device", "!"),
    ("qemu-system-x86_64: warning: This family of AMD CPU doesn't support hyperthreading(2). "
     "Please configure "
     "-smp options properly or try enabling topoext feature.", "topoext"),
    ("qemu-system-x86_64: phys-bits should be between 32 and 52  (but is 99)", "!"),
    ("warning: Host physical bits (46) does not match phys-bits property (40)", "!"),
    ("qemu-system-x86_64: CPU model 'host' requires KVM or HVF", "=host"),
    ("qemu-system-x86_64: error: failed to set MSR 0x48b to 0x159ff00000000", "!"),
    ("Hyper-V synthetic timers (hv-stimer) requires Hyper-V clocksources (hv-time)", "hv-stimer"),
    # libvirt
    ("error: operation failed: guest CPU doesn't match specification: missing features: rtm,hle",
     "rtm hle"),
    ("guest CPU doesn't match specification: extra features: ht,cmp_legacy", "ht cmp_legacy"),
    ("guest CPU doesn't match specification: missing features: a-b,svm,extra features: ht",
     "svm ht ?a-b"),
    ("guest CPU doesn't match specification: missing features: rtm,no-such-feature,hle",
     "rtm hle ?no-such-feature"),
    ("the CPU is incompatible with host CPU: Host CPU does not provide required features: mpx.",
     "mpx !"),
    ("unsupported configuration: guest and host CPU are not compatible: Host CPU does not provide "
     "required "
     "features: pcid, erms, invpcid; try using 'Nehalem' CPU model", "pcid erms invpcid !"),
    ("Host CPU does not provide required features: 'vaes', 'fsrm'", "vaes fsrm"),
    ("Host CPU provides forbidden feature 'mpx'", "mpx"),
    ("Host CPU provides forbidden features: x2apic, svm", "x2apic svm"),
    ("Host CPU does not strictly match guest CPU: Extra features: avx, aes", "avx aes"),
    ("internal error: Unknown CPU feature arch-facilities", "arch-capabilities"),
    ("error: internal error: Unknown CPU feature foo_bar", "?foo_bar"),
    ("error: internal error: Unknown CPU model EPYC-Milan", "=EPYC-Milan"),
    ("CPU feature cmt not found", "cmt"),
    ("unsupported configuration: CPU model 'EPYC-Rome' not supported by hypervisor", "=EPYC-Rome"),
    ("error: host CPU vendor does not match required CPU vendor Intel", "!"),
    ("unsupported configuration: CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 "
     "host is not "
     "supported by hypervisor", "!"),
    ("error: unsupported configuration: Target CPU feature count 12 does not match source 14", "!"),
    ("error: unsupported configuration: Target CPU feature svm does not match source vmx",
     "svm vmx"),
    ("error: unsupported configuration: Target CPU feature policy 3 does not match source 2", "!"),
    ("error: unsupported configuration: Target CPU model Haswell does not match source "
     "Skylake-Client", "=Haswell"),
    ("error: unsupported configuration: Target CPU mode host-model does not match source custom",
     "!"),
    ("Error starting domain: the CPU is incompatible with host CPU: Host CPU does not provide "
     "required features: "
     "svm\n\nTraceback (most recent call last):\n  File "
     "\"/usr/share/virt-manager/virtManager/asyncjob.py\", line 72",
     "svm !"),
    # KubeVirt, Nova
    ("0/3 nodes are available: 3 node(s) didn't match node selector "
     "cpu-feature.node.kubevirt.io/vmx", "vmx"),
    ("node(s) didn't match cpu-model.node.kubevirt.io/Skylake-Server-IBRS=true",
     "=Skylake-Server-IBRS"),
    ("host-model: cpu-model-migration.node.kubevirt.io/Haswell-noTSX", "=Haswell-noTSX"),
    ("nova.exception.InvalidCPUInfo: Configured CPU model: Cascadelake-Server is not compatible "
     "with host CPU. "
     "Please correct your config and try again.", "=Cascadelake-Server"),
    ("nova.exception.InvalidCPUInfo: Unacceptable CPU info: CPU doesn't have "
     "compatibility.\n\n0\n\nRefer to …", "!"),
    # names in any spelling, bits by leaf, register and number
    ("ept vpid nonstop_tsc", "vmx-ept vmx-vpid invtsc"),
    ("ibt user_shstk", "cet-ibt cet-ss"),
    ("stimer synic", "hv-stimer hv-synic"),
    ("CPUID 0x7.0.EBX bit 5", "avx2"),
    ("CPUID[eax=0Dh,ecx=01h].EAX [bit 3]", "xsaves"),
    ("MSR(48Dh) [bit 39]", "vmx-posted-intr"),
    ("MSR 0x10a bit 0", "rdctl-no"),
    ("CPUID.(EAX=0x7,ECX=0).EDX [bit 26]", "spec-ctrl"),
    ("avx2, nosuch", "avx2 ?nosuch"),
    ("Haswell-v4 pc-q35-7.2", "=Haswell-v4 @pc-q35-7.2"),
    ("q35", "@q35"),
    ("level=13 is the highest", ""),
    ("the printer is on fire", "?the ?printer ?is ?on ?fire"),
)  # fmt: skip
"""A message, and what is in it: features, `=` a CPU model, `@` a machine type, `?` a name that
nobody knows, `!` a message that says something without naming anything.
"""


@pytest.mark.parametrize(("text", "expected"), MESSAGES, ids=lambda text: text[:50])
def test_what_is_in_it(text: str, expected: str) -> None:
    found = explain(text, CPU_MAP)
    named = [str(one.feature.name) for one in found.features]
    named += [f"={one.name}" for one in found.models]
    named += [f"@{one.name}" for one in found.machines]
    named += ["!" for _ in found.stories]
    named += [f"?{name}" for name in found.unknown]
    assert named == expected.split()


def test_every_answer_ends_in_what_to_do() -> None:
    for text, _ in MESSAGES:
        found = explain(text, CPU_MAP)
        advice = [feature.advice.do for feature in found.features]
        advice += [model.advice.do for model in found.models]
        advice += [machine.advice.do for machine in found.machines]
        advice += [story.do for story in found.stories]
        assert all(advice), text
        assert not [do for do in advice if "{name}" in do], text


def test_a_page_of_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = "\n".join(
        [
            "2026-01-05 10:00:00.123+0000: starting up libvirt version: 9.0.0, qemu version: 7.2",
            "LC_ALL=C PATH=/usr/bin /usr/bin/qemu-system-x86_64 -name guest=web -cpu Haswell",
            "qemu-system-x86_64: warning: host doesn't support requested feature: "
            "CPUID.07H:EBX.hle [bit 4]",
            "qemu-system-x86_64: warning: host doesn't support requested feature: "
            "CPUID.07H:EBX.rtm [bit 11]",
            "2026-01-05 10:00:01.456+0000: shutting down, reason=failed",
        ]
    )
    assert main(["explain", log]) == 0
    out = capsys.readouterr().out
    assert out.index("hle: ") < out.index("rtm: ")
    assert out.count("what to do: ") == 2
    assert "unknown, to the CPU map" not in out


def test_nothing_known_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "no", "such", "words-here"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("cpumap: no feature, CPU model or machine type in this: no, such, words-here\n")


def test_nested_features_are_those_of_models_with_vmx_or_svm_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A Skylake-Server of QEMU 10.0 has posted interrupts once vmx is on, an EPYC npt with svm."""
    assert main(["explain", "vmx-posted-intr", "npt", "--recorded", "10.0"]) == 0
    out = capsys.readouterr().out
    assert "QEMU 10.0.13, with vmx on: " in out and "Skylake-Server-v1" in out
    assert "QEMU 10.0.13, with svm on: " in out and "EPYC-v1" in out
    assert "no model has it" not in out


def test_hyperv_features_say_what_they_need() -> None:
    (found,) = explain("hv-stimer", CPU_MAP).features
    assert found.requires == ("hv-vpindex", "hv-synic", "hv-time")


def test_flags_of_linux_alone_are_no_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "rep_good", "aes"]) == 0
    assert "rep_good: flags of Linux's own" in capsys.readouterr().out


def test_models_say_what_they_stand_for_and_since_when(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "SapphireRapids"]) == 0
    out = capsys.readouterr().out
    assert "stands for SapphireRapids-v1" in out
    assert "not known to QEMU 5.2.0, 6.2.0, 7.2.22" in out


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = "missing features: rtm,nosuch,extra features: ht Unknown CPU model EPYC-Milan"
    assert main(["explain", "--format", "json", text]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [one["feature"] for one in answer["features"]] == ["rtm", "ht"]
    assert [one["kind"] for one in answer["features"]] == ["missing", "extra"]
    assert [one["name"] for one in answer["models"]] == ["EPYC-Milan"]
    assert answer["unknown"] == ["nosuch"]
