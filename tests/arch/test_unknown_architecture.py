"""A guest whose CPU nobody here knows is refused by every command, and passes nowhere for done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.arch.test_s390x import OTHER_ARCHITECTURE, run

UNKNOWN = ("sparc64", "mips64el", "armv7l")


def _guest(folder: Path, arch: str) -> str:
    path = folder / "guest"
    path.write_text(
        f"<domain type='qemu'><name>g</name><memory>1</memory>\n<os><type arch='{arch}'"
        " machine='any'>hvm</type></os><cpu mode='custom'><model>one</model></cpu></domain>"
    )
    return str(path)


@pytest.mark.parametrize("arch", UNKNOWN)
@pytest.mark.parametrize(
    "command",
    [
        "translate GUEST",
        "check GUEST",
        "compare GUEST GUEST",
        "baseline GUEST",
        "update GUEST GUEST",
        "diff GUEST GUEST",
        "lock GUEST",
        "convert --dry-run GUEST",
    ],
)
def test_every_command_refuses_it_in_one_sentence(
    command: str, arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = _guest(tmp_path, arch)
    code, out, err = run(capsys, *command.replace("GUEST", guest).split())
    answer = (out + err).replace(guest, "guest")
    assert code == 2, answer
    assert f"no CPU of architecture {arch} can be" in answer
    assert not OTHER_ARCHITECTURE.search(answer), answer


def test_a_plan_judges_no_such_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "--to-qemu", "10.0", _guest(tmp_path, "sparc64"))
    assert code == 1
    assert "1 cannot be judged" in out
    assert "no CPU of architecture sparc64" in out


@pytest.mark.live
@pytest.mark.needs("qemu-riscv64-10.0")
@pytest.mark.parametrize(
    "command", ["models", "machines", "expand max", "dump max", "host --accel tcg"]
)
def test_its_qemu_is_refused_in_the_same_words(
    command: str, other_qemus: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *command.split(), "--qemu", str(other_qemus["riscv64-10.0"]))
    assert (code, out) == (2, "")
    assert "no CPU of architecture riscv64 can be made explicit" in err
    assert not OTHER_ARCHITECTURE.search(err), err
