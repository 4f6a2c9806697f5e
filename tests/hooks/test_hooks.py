"""The hooks, as libvirt, vdsm and KubeVirt call them: with recorded answers, and no QEMU or
libvirtd.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cpumap
from cpumap.cli.main import main
from cpumap.cpu.names import PropertyName, Value
from cpumap.errors import InputError
from cpumap.hooks.policy import Policy, changed_values, read_policy
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
        command,
        input=given,
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        cwd=root,
        check=False,
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
    assert changed_values(was, {PropertyName(name): value for name, value in now.items()}) == [
        "a on → off",
        "c 1 → 2",
        "gone-on on → absent",
        "new-on absent → on",
    ]


@pytest.mark.parametrize("name", ["--", "-", "-h", "--policy", "--install", "", "libvirt", "a\nb"])
def test_no_name_of_a_domain_evades_the_policy(policy: Path, explicit: str, name: str) -> None:
    for given, code in ((DOMAIN, 1), (explicit, 0)):
        assert libvirt(policy, "start begin", given, name).returncode == code


@pytest.mark.parametrize("words", [(), ("web",), ("web", "start", "begin", "-", "more")])
def test_words_that_libvirt_never_gives_follow_the_policy(
    policy: Path, explicit: str, words: tuple[str, ...]
) -> None:
    done = hook("--policy", str(policy), "--", "libvirt", *words, given=explicit)
    assert done.returncode == 1
    assert "libvirt gives its hook 4 words" in done.stderr


def test_a_domains_name_forges_no_line(policy: Path) -> None:
    name = "x\n2030-01-01T00:00:00 libvirt web start begin: passed\x1b[2J\x85"
    done = libvirt(policy, "start begin", DOMAIN, name)
    assert done.returncode == 1
    logged = (policy.parent / "hook.log").read_text()
    for text in (done.stderr, logged):
        assert (text.count("\n"), "\x1b" in text, "\x85" in text) == (1, False, False)


def test_a_policy_that_others_may_write_is_not_obeyed(policy: Path) -> None:
    for mode in (0o666, 0o660, 0o602):
        policy.chmod(mode)
        done = libvirt(policy, "start begin", DOMAIN)
        assert done.returncode == 0
        assert f"{policy}: is not obeyed: " in done.stderr
        assert main(["hook", "libvirt", "--check", "--policy", str(policy)]) == 2
    policy.chmod(0o644)
    assert libvirt(policy, "start begin", DOMAIN).returncode == 1


def test_a_policy_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    policy = tmp_path / "hook.toml"
    os.mkfifo(policy)
    done = libvirt(policy, "start begin", DOMAIN)
    assert (done.returncode, "no regular file" in done.stderr) == (0, True)


BAD_POLICIES = {
    "TOML": b"on-error = ",
    "depth": b"a = " + b"[" * 5000,
    "bytes": b"log = '\xff'",
    "no time": b"time-limit = 0",
    "less than no time": b"time-limit = -1",
    "a long time": b"time-limit = 1000000000000000000000000000000",
    "time as text": b"time-limit = '5'",
    "unknown": b"on-eror = 'pass'",
    "log in no directory": b"log = '/no/such/directory/log'",
    "log of no name": b'log = "a\\u0000b"',
    "log is a directory": b"log = '/'",
    "state in no directory": b"state = '/proc/none'",
    "recorded": b"recorded = '0.1'",
}


@pytest.mark.parametrize("text", BAD_POLICIES.values(), ids=BAD_POLICIES)
@pytest.mark.parametrize("operation", ["start begin", "started begin"])
def test_whatever_is_wrong_passes_unless_refusing_is_wished(
    tmp_path: Path, text: bytes, operation: str
) -> None:
    policy = tmp_path / "hook.toml"
    policy.write_bytes(text)
    for given in (DOMAIN, "garbage"):
        done = libvirt(policy, operation, given)
        assert (done.returncode, done.stdout) == (0, "")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "xx_YY.nonsense"])
def test_no_locale_keeps_a_guest_from_running(policy: Path, locale: str) -> None:
    policy.write_text(policy.read_text().replace("'refuse'", "'pass'"))
    command = [sys.executable, "-m", "cpumap", "hook", "--policy", str(policy), "--", "libvirt"]
    for name in ("wéb → \u2028", "\udcff\udc80"):
        words = [os.fsencode(word) for word in (*command, name, "start", "begin", "-")]
        env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            words,
            input=DOMAIN.encode(),
            capture_output=True,
            env=env,
            timeout=60,
            cwd=TREE,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"Traceback" not in done.stderr


def test_a_log_that_is_a_pipe_is_not_waited_for(policy: Path, explicit: str) -> None:
    os.mkfifo(policy.parent / "hook.log")
    assert libvirt(policy, "start begin", explicit).returncode == 0


@pytest.mark.parametrize("kept", ["[]", "1", "{}", '{"qemu": 1, "cpu": {}}', "{", "[" * 99999])
def test_a_remembered_cpu_of_the_wrong_shape_is_named(
    policy: Path, explicit: str, kept: str
) -> None:
    assert libvirt(policy, "started begin", explicit).returncode == 0
    (file,) = (policy.parent / "state").iterdir()
    file.write_text(kept)
    done = libvirt(policy, "restore begin", explicit)
    assert (done.returncode, str(file) in done.stderr) == (1, True)


def test_an_installed_hook_takes_no_module_from_where_it_is_called(
    tmp_path: Path, policy: Path, explicit: str
) -> None:
    where = ["--hooks-dir", str(tmp_path / "hooks"), "--policy", str(policy)]
    assert main(["hook", "libvirt", "--install", *where]) == 0
    here = tmp_path / "here"
    here.mkdir()
    for module in ("cpumap", "argparse", "json", "signal", "tomllib"):
        (here / f"{module}.py").write_text(f"open({str(tmp_path / 'entered')!r}, 'w')")
    script = tmp_path / "hooks/qemu.d/50-cpumap"
    for given, code in ((explicit, 0), (DOMAIN, 1)):
        call = [str(script), "--", "start", "begin", "-"]
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(here)}
        done = subprocess.run(
            call, input=given.encode(), timeout=60, cwd=here, env=env, check=False
        )
        assert done.returncode == code
    assert not (tmp_path / "entered").exists()


def test_an_installed_hook_without_cpumap_keeps_no_guest_from_running(
    tmp_path: Path, policy: Path
) -> None:
    where = ["--hooks-dir", str(tmp_path / "hooks"), "--policy", str(policy)]
    assert main(["hook", "libvirt", "--install", *where]) == 0
    script = tmp_path / "hooks/qemu.d/50-cpumap"
    script.write_text(script.read_text().replace("from cpumap.cli.main", "from cpumap.cli.gone"))
    call = [str(script), "web", "start", "begin", "-"]
    done = subprocess.run(call, input=DOMAIN.encode(), timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr[:27]) == (0, b"cpumap: cannot be started: ")


def test_install_keeps_a_hook_of_the_users_own(tmp_path: Path, policy: Path, explicit: str) -> None:
    own = tmp_path / "hooks/qemu"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    where = ["--hooks-dir", str(own.parent), "--policy", str(policy)]
    assert main(["hook", "libvirt", "--install", *where]) == 0
    script = own.parent / "qemu.d/50-cpumap"
    call = [str(script), "web", "start", "begin", "-"]
    root = TREE
    assert (
        subprocess.run(call, input=explicit.encode(), timeout=60, cwd=root, check=False).returncode
        == 0
    )
    assert (
        subprocess.run(call, input=DOMAIN.encode(), timeout=60, cwd=root, check=False).returncode
        == 1
    )
    assert main(["hook", "libvirt", "--install", *where]) == 0, "twice is as good as once"
    assert main(["hook", "libvirt", "--uninstall", *where]) == 0
    assert (script.exists(), own.read_text()) == (False, "#!/bin/sh\n")
    script.write_text("#!/bin/sh\n# somebody else's\n")
    assert main(["hook", "libvirt", "--install", *where]) == 2
    assert main(["hook", "libvirt", "--uninstall", *where]) == 0
    assert script.read_text() == "#!/bin/sh\n# somebody else's\n"
    assert main(["hook", "kubevirt", "--install", *where]) == 2
