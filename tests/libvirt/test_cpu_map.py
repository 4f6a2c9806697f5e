"""CPU maps: libvirt's format, the crossing of names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpumap.cpu.bits import CpuidBits, MsrBits
from cpumap.cpu.names import FeatureName, PropertyName
from cpumap.errors import CpuMapError, InputError, UnknownNameError
from cpumap.libvirt.cpu_map.entries import Signature
from cpumap.libvirt.cpu_map.load import load_cpu_map
from cpumap.libvirt.cpu_map.map import CpuMap

FEATURES = """
  <vendor name='Intel' string='GenuineIntel'/>
  <feature name='sse2'><cpuid eax_in='0x01' edx='0x04000000'/></feature>
  <feature name='sse4.1'>
    <alias name='sse4-1' source='qemu'/>
    <alias name='sse4_1' source='linux'/>
    <cpuid eax_in='0x01' ecx='0x00080000'/>
  </feature>
  <feature name='avx2'><cpuid eax_in='0x07' ecx_in='0x00' ebx='0x00000020'/></feature>
  <feature name='invtsc' migratable='no'><cpuid eax_in='0x80000007' edx='0x00000100'/></feature>
  <feature name='rdctl-no'><msr index='0x10a' edx='0x00000001' eax='0x00000002'/></feature>
  <feature name='lahf_lm'><alias name='lahf-lm' source='qemu'/></feature>
"""

MODELS = """
  <model name='Child'>
    <model name='Parent'/>
    <feature name='avx2' added='yes'/>
    <feature name='sse2' removed='yes'/>
  </model>
  <model name='Parent'>
    <decode host='on' guest='off'/>
    <signature family='6' model='85' stepping='0-2,5'/>
    <vendor name='Intel'/>
    <feature name='sse4.1'/>
    <feature name='sse2'/>
  </model>
"""


def single_file(directory: Path, body: str) -> Path:
    """An old-style cpu_map.xml with this x86 section."""
    path = directory / "cpu_map.xml"
    path.write_text(f"<cpus>\n<arch name='x86'>{body}</arch>\n<arch name='arm'/>\n</cpus>\n")
    return path


@pytest.fixture
def cpu_map(tmp_path: Path) -> CpuMap:
    return load_cpu_map(single_file(tmp_path, FEATURES + MODELS))


@pytest.fixture(scope="module")
def shipped() -> CpuMap:
    return load_cpu_map()


def test_features_have_bits_and_migratability(cpu_map: CpuMap) -> None:
    assert cpu_map.feature("avx2").bits == (CpuidBits(7, 0, "ebx", 0x20),)
    assert cpu_map.feature("rdctl-no").bits == (MsrBits(0x10A, 0x1_0000_0002),)
    assert cpu_map.blocking == {"invtsc"}
    assert cpu_map.migratable(cpu_map.features) == cpu_map.features.keys() - {"invtsc"}


def test_a_model_inherits(cpu_map: CpuMap) -> None:
    child = cpu_map.model("Child")
    assert child.listed == ("sse4.1",)
    assert child.features == {"sse4.1"}
    assert child.added == {"avx2"}
    assert child.removed == ("sse2",)
    assert (child.vendor, child.base) == ("Intel", "Parent")
    assert child.signatures == (Signature(6, 85, frozenset({0, 1, 2, 5})),)
    assert (child.decode_host, child.decode_guest) == (True, True)
    assert (cpu_map.model("Parent").decode_host, cpu_map.model("Parent").decode_guest) == (
        True,
        False,
    )
    assert list(cpu_map.models) == ["Child", "Parent"]


@pytest.mark.parametrize(("stepping", "fits"), [(0, True), (3, False), (5, True)])
def test_a_signature_may_be_limited_to_steppings(
    cpu_map: CpuMap, stepping: int, fits: bool
) -> None:
    (signature,) = cpu_map.model("Parent").signatures
    assert signature.fits(6, 85, stepping) is fits
    assert not signature.fits(6, 86, stepping)


def test_the_old_format_calls_the_leaf_function(tmp_path: Path) -> None:
    old = load_cpu_map(
        single_file(
            tmp_path, "<feature name='de'><cpuid function='0x00000001' edx='0x4'/></feature>"
        )
    )
    assert old.feature("de").bits == (CpuidBits(1, 0, "edx", 4),)


def test_groups_and_includes(tmp_path: Path) -> None:
    (tmp_path / "features.xml").write_text(f"<cpus><!-- x -->{FEATURES}</cpus>")
    (tmp_path / "models.xml").write_text(f"<cpus><group name='all'>{MODELS}</group></cpus>")
    include = "<group name='g'><include filename='models.xml'/></group>"
    index = f"<cpus><arch name='x86'><include filename='features.xml'/>{include}</arch></cpus>"
    (tmp_path / "index.xml").write_text(index)
    for path in (tmp_path, tmp_path / "index.xml"):
        assert list(load_cpu_map(path).models) == ["Child", "Parent"]


CROSSINGS = [
    ("pclmuldq", "pclmulqdq"),
    ("pni", "pni"),
    ("sse4.1", "sse4.1"),
    ("ds_cpl", "ds-cpl"),
    ("lahf_lm", "lahf-lm"),
    ("nodeid_msr", "nodeid-msr"),
    ("perfctr_core", "perfctr-core"),
    ("perfctr_nb", "perfctr-nb"),
    ("tsc_adjust", "tsc-adjust"),
    ("fxsr_opt", "fxsr-opt"),
    ("cmp_legacy", "cmp-legacy"),
    ("lm", "lm"),
    ("nx", "nx"),
    ("mmxext", "mmxext"),
    ("nrip-save", "nrip-save"),
    ("kvm_pv_eoi", "kvm-pv-eoi"),
    ("kvm_pv_unhalt", "kvm-pv-unhalt"),
    ("a-feature-of-tomorrow", "a-feature-of-tomorrow"),
]


@pytest.mark.parametrize(("feature", "prop"), CROSSINGS)
def test_names_cross_and_come_back(shipped: CpuMap, feature: str, prop: str) -> None:
    assert shipped.property_of(FeatureName(feature)) == prop
    assert shipped.feature_of(PropertyName(prop)) == feature


SPELLINGS = [
    ("sse3", "pni"),
    ("sse4_1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("xd", "nx"),
    ("i64", "lm"),
    ("ffxsr", "fxsr_opt"),
    ("nrip_save", "nrip-save"),
    ("svm_lock", "svm-lock"),
    ("pclmuldq", "pclmuldq"),
]


@pytest.mark.parametrize(("spelling", "feature"), SPELLINGS)
def test_every_spelling_of_qemus_is_known(shipped: CpuMap, spelling: str, feature: str) -> None:
    assert shipped.feature_of(PropertyName(spelling)) == feature
    assert shipped.feature(spelling).name == feature
    assert shipped.property_of(FeatureName(spelling)) == shipped.property_of(FeatureName(feature))


def test_all_names_of_the_shipped_map_come_back(shipped: CpuMap) -> None:
    assert (
        len({shipped.property_of(name) for name in shipped.features}) == len(shipped.features) > 350
    )
    assert [shipped.feature_of(shipped.property_of(name)) for name in shipped.features] == list(
        shipped.features
    )


def test_the_shipped_map_is_whole(shipped: CpuMap) -> None:
    assert len(shipped.models) > 150
    single = [bits for feature in shipped.features.values() for bits in feature.bits]
    assert len(set(single)) == len(single) == len(shipped.features)
    assert all(bits.mask.bit_count() == 1 for bits in single)
    assert shipped.vendor_named("GenuineIntel") == shipped.vendors["Intel"]
    assert shipped.vendor_named("GenuineIntl") is None


def test_an_alias_is_its_version(shipped: CpuMap) -> None:
    assert shipped.model("Haswell-noTSX-IBRS").features == shipped.model("Haswell-v4").features
    assert shipped.model("Haswell").features - shipped.model("Haswell-v2").features == {
        "hle",
        "rtm",
    }


@pytest.mark.parametrize("arch", ["x86_64", "i686"])
def test_both_x86_architectures_share_a_section(arch: str) -> None:
    assert load_cpu_map(arch=arch).arch == arch


# What each input is, where the complaint points (line of cpu_map.xml, None: no line), and what it
# says.
BAD = [
    ("<feature/>", 2, "<feature> without name="),
    ("<feature name='a'/>\n<feature name='a'/>", 3, "CPU feature 'a' is defined twice"),
    ("<feature name='a'><cpuid edx='1'/></feature>", 2, "missing required attribute 'function'"),
    ("<feature name='a'><cpuid eax_in='1' edx='x'/></feature>", 2, "'x' (expected a number"),
    ("<feature name='a'><cpuid eax_in='1' edx='0x100000000'/></feature>", 2, "expected a number"),
    ("<feature name='a'><msr eax='1'/></feature>", 2, "missing required attribute 'index'"),
    ("<feature name='a' migratable='perhaps'/>", 2, "migratable='perhaps' in <feature> is neither"),
    (
        "<vendor name='A' string='x'/><vendor name='A' string='y'/>",
        2,
        "CPU vendor 'A' is defined twice",
    ),
    ("<model name='m'/>\n<model name='m'/>", 3, "CPU model 'm' is defined twice"),
    (
        "<model name='m'><model name='n'/></model>",
        2,
        "'m' inherits from 'n', which is not in the map",
    ),
    ("<model name='m'><model name='m'/></model>", 2, "inherits from itself: m → m"),
    (
        "<model name='m'><model name='n'/></model>\n<model name='n'><model name='m'/></model>",
        2,
        "inherits from itself: m → n → m",
    ),
    ("<model name='m'><feature name='f'/></model>", 2, "CPU feature 'f' is not in the CPU map"),
    ("<model name='m'><vendor name='v'/></model>", 2, "CPU vendor 'v' is not in the CPU map"),
    (
        "<feature name='f'/><model name='m'>\n<feature name='f'/>\n<feature name='f'/></model>",
        4,
        "'m' lists feature 'f' twice",
    ),
    ("<model name='m'><signature family='6'/></model>", 2, "missing required attribute 'model'"),
    (
        "<model name='m'><signature family='6' model='1' stepping='9-x'/></model>",
        2,
        "no list of numbers",
    ),
    (
        "<model name='m'><signature family='6' model='1' stepping='16'/></model>",
        2,
        "no list of numbers",
    ),
    ("<model name='m'><decode host='maybe'/></model>", 2, "host='maybe' in <decode> is neither"),
    ("\n<include/>", 3, "<include> without filename="),
    ("\n<include filename='missing.xml'/>", 3, "cannot include"),
    ("\n<include filename='.'/>", 3, "cannot include"),
    ("<feature name='a'>", 2, "not well-formed XML"),
]


@pytest.mark.parametrize(("body", "line", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused_with_its_place(
    tmp_path: Path, body: str, line: int, message: str
) -> None:
    path = single_file(tmp_path, body)
    with pytest.raises(InputError) as raised:
        read_everything(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert message in str(raised.value)
    assert raised.value.exit_code == 2


def read_everything(path: Path) -> None:
    cpu_map = load_cpu_map(path)
    assert cpu_map.vendors.keys() | cpu_map.features.keys() | cpu_map.models.keys()


WRONG_FILES = [
    (b"", "not well-formed XML"),
    (b"\0\xff", "not well-formed XML"),
    (b"<cpu/>", "a CPU map begins with <cpus>, not <cpu>"),
    (b"<cpus/>", "no section for architecture x86_64"),
    (b"<!DOCTYPE a [<!ENTITY b 'c'>]><cpus><arch name='x86'/></cpus>", "entities"),
    (b"<cpus>" + b" " * (17 << 20) + b"</cpus>", "too large"),
]


@pytest.mark.parametrize(
    ("content", "message"), WRONG_FILES, ids=[message for _, message in WRONG_FILES]
)
def test_files_that_are_no_map(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cpu_map.xml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        load_cpu_map(path)
    assert str(path) in str(raised.value)


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CpuMapError, match="No such file"):
        load_cpu_map(tmp_path / "nowhere")
    with pytest.raises(CpuMapError, match="No such file"):
        load_cpu_map(tmp_path)  # a directory without index.xml


def test_names_that_are_not_there(shipped: CpuMap) -> None:
    with pytest.raises(
        UnknownNameError, match=r"^vm.xml:7: CPU model 'Pentium9' is not in the CPU map"
    ):
        shipped.model("Pentium9", "vm.xml:7")
    with pytest.raises(
        UnknownNameError, match=r"^vm.xml:7: CPU feature 'sse9' is not in the CPU map"
    ):
        shipped.feature("sse9", "vm.xml:7")
    with pytest.raises(UnknownNameError, match="no section for architecture s390x"):
        load_cpu_map(arch="s390x")
