"""The hooks, as libvirt, vdsm and KubeVirt call them: with recorded answers, and no QEMU or
libvirtd.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cpumap
from cpumap.cli.main import main
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import InputError
from cpumap.hooks.policy import Policy, differences, read_policy
from tests.support.paths import TREE

DOMAIN = """\
<domain type='qemu'>
  <name>web</name>
  <uuid>8c3b1b1e-5b58-4d0e-9d2c-2f7b3a8b7a10</uuid>
  <memory unit='MiB'>512</memory>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='none'><model>Penryn</model></cpu>
</domain>
"""


@pytest.fixture(scope="module")
def explicit() -> str:
    return cpumap.translate(DOMAIN, format="xml", recorded="7.2")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "hook.toml"
    path.write_text(
        f"recorded = '7.2'\non-error = 'refuse'\nexclude = ['scratch-*']\n"
        f"log = '{tmp_path}/hook.log'\nstate = '{tmp_path}/state'\n"
    )
    return path


def hook(*words: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cpumap", "hook", *words]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/", **environment}
    root = TREE
    return subprocess.run(
        command, input=given, capture_output=True, text=True, env=env, timeout=60, cwd=root
    )


def libvirt(
    policy: Path, operation: str, given: str, name: str = "web"
) -> subprocess.CompletedProcess[str]:
    return hook(
        "--policy", str(policy), "--", "libvirt", name, *operation.split(), "-", given=given
    )


@pytest.mark.parametrize(
    "operation", ["prepare begin", "start begin", "migrate begin", "restore begin"]
)
def test_an_explicit_cpu_passes_in_silence(policy: Path, explicit: str, operation: str) -> None:
    done = libvirt(policy, operation, explicit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "operation", ["prepare begin", "start begin", "migrate begin", "restore begin"]
)
def test_a_cpu_left_to_defaults_is_refused(policy: Path, operation: str) -> None:
    done = libvirt(policy, operation, DOMAIN)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused: its CPU is not explicit" in done.stderr
    assert f"libvirt web {operation}: refused" in (policy.parent / "hook.log").read_text()


@pytest.mark.parametrize(
    "operation",
    ["stopped end", "reconnect begin", "release end", "nonsense whatever", "attach begin"],
)
def test_other_operations_are_none_of_ours(policy: Path, operation: str) -> None:
    done = libvirt(policy, operation, "not even XML")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_domains_left_out_are_not_looked_at(policy: Path) -> None:
    assert libvirt(policy, "start begin", "not even XML", "scratch-1").returncode == 0
    assert libvirt(policy, "start begin", DOMAIN, "-a-name-like-an-option").returncode == 1


@pytest.mark.parametrize(
    "given",
    ["", "garbage", "<domain/>", DOMAIN.replace("7.2'", "0.1'"), DOMAIN.replace("Penryn", "Nix")],
)
def test_what_cannot_be_judged_follows_the_policy(policy: Path, given: str) -> None:
    assert libvirt(policy, "start begin", given).returncode == 1
    policy.write_text(policy.read_text().replace("'refuse'", "'pass'"))
    done = libvirt(policy, "start begin", given)
    assert (done.returncode, done.stdout) == (0, "")
    assert "passed, but: " in done.stderr and "Traceback" not in done.stderr


def test_a_guest_restored_with_another_cpu_is_refused(policy: Path, explicit: str) -> None:
    assert libvirt(policy, "started begin", explicit).returncode == 0
    assert libvirt(policy, "restore begin", explicit).returncode == 0
    other = explicit.replace("x86_64-cpu.pmu=off", "x86_64-cpu.pmu=on")
    assert other != explicit
    done = libvirt(policy, "restore begin", other)
    assert done.returncode == 1
    assert "was started with another CPU" in done.stderr and "pmu off → on" in done.stderr


def test_well_under_a_second(policy: Path, explicit: str) -> None:
    began = time.process_time()
    libvirt(policy, "start begin", explicit)
    assert time.process_time() - began < 1


def test_vdsm_pins_the_file_it_is_given(policy: Path, tmp_path: Path, explicit: str) -> None:
    file = tmp_path / "domain.xml"
    file.write_text(DOMAIN)
    assert hook("vdsm", "--policy", str(policy), _hook_domxml=str(file)).returncode == 0
    assert file.read_text() == explicit
    arriving = ("vdsm", "--policy", str(policy), "--event", "before_vm_migrate_destination")
    assert hook(*arriving, _hook_domxml=str(file)).returncode == 0
    file.write_text(DOMAIN)
    done = hook(*arriving, _hook_domxml=str(file))
    assert (done.returncode, file.read_text()) == (2, DOMAIN), (
        "a guest that runs already must keep its CPU"
    )
    assert hook("vdsm", "--policy", str(policy)).returncode == 2


def test_kubevirt_prints_the_pinned_domain(policy: Path, explicit: str) -> None:
    vmi = json.dumps({"metadata": {"name": "web"}})
    done = hook("kubevirt", "--policy", str(policy), "--vmi", vmi, "--domain", DOMAIN)
    assert (done.returncode, done.stdout) == (0, explicit)
    left_out = hook(
        "kubevirt",
        "--policy",
        str(policy),
        "--vmi",
        vmi.replace("web", "scratch-1"),
        "--domain",
        DOMAIN,
    )
    assert (left_out.returncode, left_out.stdout) == (0, DOMAIN)
    unknown = DOMAIN.replace("Penryn", "Nix")
    assert hook("kubevirt", "--policy", str(policy), "--vmi", vmi, "--domain", unknown).stdout == ""
    policy.write_text(policy.read_text().replace("'refuse'", "'pass'"))
    assert (
        hook("kubevirt", "--policy", str(policy), "--vmi", vmi, "--domain", unknown).stdout
        == unknown
    )


@pytest.mark.parametrize(
    "text",
    [
        "on-error = 'maybe'",
        "domains = 'all'",
        "nonsense = 1",
        "time-limit = 'long'",
        "= broken",
        "pin = 'none'",
    ],
)
def test_a_wrong_policy_is_said_and_keeps_no_guest_from_running(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hook.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"hook\.toml"):
        read_policy(path)
    assert main(["hook", "libvirt", "--check", "--policy", str(path)]) == 2
    assert libvirt(path, "stopped end", "").returncode == 0


def test_check_says_what_the_policy_is(
    policy: Path, explicit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy.parent / "web.xml"
    file.write_text(DOMAIN)
    assert main(["hook", "libvirt", "--policy", str(policy), "--check", str(file)]) == 1
    assert "on-error: refuse" in (said := capsys.readouterr().out)
    assert "not explicit" in said
    file.write_text(explicit)
    assert main(["hook", "libvirt", "--policy", str(policy), "--check", str(file)]) == 0


def test_defaults_where_there_is_no_policy(tmp_path: Path) -> None:
    assert read_policy(tmp_path / "none.toml") == Policy()
    assert Policy().on_error == "pass"


def test_differences_count_what_is_on() -> None:
    was: dict[str, Value] = {"a": True, "b": False, "c": 1, "gone-off": False, "gone-on": True}
    now: dict[str, Value] = {"a": False, "b": False, "c": 2, "new-off": False, "new-on": True}
    assert differences(was, {PropertyName(name): value for name, value in now.items()}) == [
        "a on → off",
        "c 1 → 2",
        "gone-on on → absent",
        "new-on absent → on",
    ]


def test_install_keeps_a_hook_of_the_users_own(tmp_path: Path, policy: Path, explicit: str) -> None:
    own = tmp_path / "hooks/qemu"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    where = ["--hooks-dir", str(own.parent), "--policy", str(policy)]
    assert main(["hook", "libvirt", "--install", *where]) == 0
    script = own.parent / "qemu.d/50-cpumap"
    call = [str(script), "web", "start", "begin", "-"]
    root = TREE
    assert subprocess.run(call, input=explicit.encode(), timeout=60, cwd=root).returncode == 0
    assert subprocess.run(call, input=DOMAIN.encode(), timeout=60, cwd=root).returncode == 1
    assert main(["hook", "libvirt", "--install", *where]) == 0, "twice is as good as once"
    assert main(["hook", "libvirt", "--uninstall", *where]) == 0
    assert (script.exists(), own.read_text()) == (False, "#!/bin/sh\n")
    script.write_text("#!/bin/sh\n# somebody else's\n")
    assert main(["hook", "libvirt", "--install", *where]) == 2
    assert main(["hook", "libvirt", "--uninstall", *where]) == 0
    assert script.read_text() == "#!/bin/sh\n# somebody else's\n"
    assert main(["hook", "kubevirt", "--install", *where]) == 2
