"""The Ansible collection, run by a real ansible-core on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import TREE

pytestmark = pytest.mark.live

COLLECTIONS = TREE / "packaging/ansible"

Task = Callable[..., tuple[str, dict[str, Any]]]

ROLE = """\
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: cpumap.guests.cpumap
"""


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a fresh ansible-core's programs, from the package index."""
    place = tmp_path_factory.mktemp("ansible")
    venv.create(place, with_pip=True)
    pip = str(place / "bin/pip")
    subprocess.run([pip, "install", "--quiet", "ansible-core>=2.14"], check=True)
    return place / "bin"


@pytest.fixture
def cpumap(tmp_path: Path) -> Path:
    """This tree's cpumap, as a program."""
    program = tmp_path / "bin/cpumap"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={TREE} exec {sys.executable} -m cpumap "$@"\n')
    program.chmod(0o755)
    return program


def _run(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def task(ansible: Path, cpumap: Path) -> Task:
    """Runs the module; gives how it went, in Ansible's word, and what it answers."""

    def run(options: dict[str, object], *words: str) -> tuple[str, dict[str, Any]]:
        text = json.dumps({**options, "executable": str(cpumap)})
        module = ("-m", "cpumap.guests.cpumap", "-a", text)
        done = _run(ansible / "ansible", "localhost", "-c", "local", *words, *module)
        head, _, answer = done.stdout.rpartition(" => {")
        assert head, done.stdout + done.stderr
        return head.rpartition("| ")[2], {**json.loads("{" + answer), "shown": head}

    return run


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return shutil.copytree(TREE / "data/examples", tmp_path / "vms")


def _texts(fleet: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fleet.glob("*.xml")}


def test_files_checked_converted_and_left_alone(task: Task, fleet: Path, tmp_path: Path) -> None:
    options = {"path": [str(fleet)], "recorded": "10.0", "backup_dir": str(tmp_path / "old")}
    before = _texts(fleet)

    word, answer = task(options, "--check", "--diff")
    assert (word, answer["changed"]) == ("CHANGED", True)
    assert "-    <model fallback='allow'>EPYC</model>" in answer["shown"]
    assert _texts(fleet) == before

    word, answer = task(options)
    converted = [g["file"] for g in answer["guests"] if g["status"] == "converted"]
    assert word == "CHANGED"
    assert sorted(converted) == sorted(str(fleet / name) for name in before)
    assert all(_texts(fleet)[name] != text for name, text in before.items())
    kept = {path.name: path.read_bytes() for path in (tmp_path / "old").rglob("*.xml")}
    assert kept == before

    assert task(options)[1]["changed"] is False


def test_no_backup_and_bad_documents_are_failures(task: Task, fleet: Path) -> None:
    word, answer = task({"path": [str(fleet)]})
    assert word == "FAILED!"
    assert "backup_dir" in answer["msg"]
    bad = fleet / "bad.xml"
    bad.write_text("<domain>\n<cpu></domain>\n")
    word, answer = task({"path": [str(bad)], "recorded": "10.0"}, "--check")
    assert word == "FAILED!"
    assert "bad.xml:2" in answer["msg"]


def test_domains_of_a_libvirt(task: Task) -> None:
    """Its test driver has one domain, of no hypervisor that cpumap speaks of."""
    word, answer = task({"connect": "test:///default"}, "--check")
    assert word == "FAILED!"
    assert [guest["name"] for guest in answer["guests"]] == ["test"]
    assert "domain type 'test' is none of kvm, qemu" in answer["msg"]


def test_the_role_twice(ansible: Path, cpumap: Path, fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    book = tmp_path / "play.yml"
    book.write_text(ROLE)
    settings = {
        "cpumap_guests": str(fleet),
        "cpumap_lock": str(tmp_path / "state/cpu.lock.json"),
        "cpumap_lock_options": "--recorded 10.0",
        "cpumap_audit_options": "--recorded 10.0",
        "cpumap_hooks_dir": str(tmp_path / "hooks"),
        "cpumap_etc": str(tmp_path / "etc"),
        "cpumap_executable": str(cpumap),
        "cpumap_timer": False,
    }
    play = (ansible / "ansible-playbook", "-e", json.dumps(settings), book)
    first = _run(*play)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (tmp_path / "hooks/qemu.d/50-cpumap").exists()
    assert 'on-error = "pass"' in (tmp_path / "etc/cpumap/hook.toml").read_text()
    assert "changed=0 " in _run(*play).stdout

    environment = {**os.environ, "CPUMAP_SETTINGS": str(tmp_path / "etc/default/cpumap")}
    environment["PATH"] = f"{cpumap.parent}:{environment['PATH']}"
    audit = subprocess.run(
        [TREE / "packaging/audit"], env=environment, capture_output=True, text=True, check=False
    )
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "holds" in audit.stdout
