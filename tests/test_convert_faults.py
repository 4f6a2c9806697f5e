"""Conversions cut short, on full disks, beside each other: nothing is lost, nothing half-written, the rest is done."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpumap import convert_run
from cpumap.cli import main
from cpumap.commands import fleet
from cpumap.convert_journal import JOURNAL
from cpumap.convert_write import Writer
from tests.test_convert import RECORDED, content, convert, small, stored


def test_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path, {"a.xml": small(), "b.xml": small("b")})

    def edit(step: str) -> None:
        if step == "journaled":
            (directory / "a.xml").write_bytes(b"edited")

    monkeypatch.setattr("cpumap.commands.fleet.Writer", functools.partial(Writer, on_step=edit))
    assert convert(directory, "--in-place") == 3
    assert (directory / "a.xml").read_bytes() == b"edited" and (directory / "b.xml").read_bytes() != small("b")
    assert "changed while it was converted, left alone" in capsys.readouterr().out
    assert sorted(content(directory)) == ["a.xml", "b.xml"]


def test_two_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path, {"a.xml": small()})
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert convert(directory, "--in-place") == 3
    finally:
        os.close(handle)
    assert "another conversion is at work in it" in capsys.readouterr().err
    assert content(directory) == {"a.xml": small()}


DISTURBED = 6
"""Documents in a run that is cut short, two in a group."""

GROUP = 5
"""Steps of a group of two."""

PAGE = os.sysconf("SC_PAGESIZE")

KILLS = int(os.environ.get("CPUMAP_KILLS", "50"))
"""Runs that are killed at a moment that nobody chose."""


def _started(words: Sequence[str], on_step: Callable[[str], None] = lambda _: None) -> int:
    """The process that runs a conversion, two documents in a group; imports and answers it has from this one."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    try:
        convert_run.BATCH = 2
        setattr(fleet, "Writer", functools.partial(Writer, on_step=on_step))  # noqa: B010 (mypy: it is a type)
        code = main(["convert", *words, "--jobs", "1", *RECORDED])
    finally:
        os._exit(code)


def _in_child(words: Sequence[str], on_step: Callable[[str], None]) -> int:
    """The wait status of a child process that runs a conversion."""
    return os.waitpid(_started(words, on_step), 0)[1]


def _at(number: int, what: signal.Signals) -> Callable[[str], None]:
    """Sends the signal to this process at its so-manieth step."""
    left = number

    def step(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), what)

    return step


@dataclass(frozen=True)
class Undisturbed:
    """What is there before and after a run that nothing cuts short, and how long it takes in a child."""

    old: dict[str, bytes]
    new: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    old = {f"{n}.xml": small(str(n), ("Haswell", "EPYC")[n % 2], "pc-q35-2.11") for n in range(DISTURBED)}
    directory, again = (stored(tmp_path_factory.mktemp("undisturbed"), old) for _ in range(2))
    assert convert(directory, "--in-place", *CHAIN) == 0
    started = time.monotonic()
    assert _in_child([str(again), "--in-place", *CHAIN], lambda _: None) == 0
    return Undisturbed(old, content(directory), time.monotonic() - started)


STEPS = range(1, 16)
CHAIN = ("--machine", "pc-q35-2.11=pc-q35-7.2,pc-q35-7.2=pc-q35-6.2")
"""Moves that would go wrong if a document were converted twice."""


def _words(directory: Path, output: Path) -> list[str]:
    """A conversion into `output`, which may be the directory itself."""
    return [str(directory), *(["--in-place"] if output == directory else ["--output-dir", str(output)]), *CHAIN]


def _finishes(
    words: Sequence[str], directory: Path, output: Path, undisturbed: Undisturbed, journal: Path | None = None
) -> None:
    """What a killed run left is whole, and a second one makes of it what an undisturbed run makes."""
    old, new = undisturbed.old, undisturbed.new
    kept = content(directory)
    assert kept.keys() >= old.keys()
    for name in old:
        assert kept[name] in ((old[name], new[name]) if output == directory else (old[name],))
        path = output / name
        assert not path.exists() or path.read_bytes() in (old[name], new[name]), name
    if ((journal or output) / JOURNAL).exists():
        assert main(["convert", *words, *RECORDED, "--resume"]) == 0
    elif content(output) != new:
        assert output != directory or kept == old, "without a journal, the run is complete or has done nothing"
        assert main(["convert", *words, *RECORDED]) == 0
    assert content(output) == new
    assert output == directory or content(directory) == old


@pytest.mark.parametrize("how", ["in-place", "output-dir"])
def test_killed_between_steps(tmp_path: Path, undisturbed: Undisturbed, how: str) -> None:
    for number in STEPS:
        directory = stored(tmp_path / str(number), undisturbed.old)
        output = directory if how == "in-place" else tmp_path / f"{number}-out"
        words = _words(directory, output)
        assert os.WTERMSIG(_in_child(words, _at(number, signal.SIGKILL))) == signal.SIGKILL
        _finishes(words, directory, output, undisturbed)


@pytest.mark.parametrize("how", ["in-place", "output-dir"])
def test_killed_at_any_moment(tmp_path: Path, undisturbed: Undisturbed, how: str) -> None:
    """Half the moments in each way of writing; every fourth run that resumes is killed once more."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    killed = 0
    for number in range(KILLS // 2):
        directory = stored(tmp_path / str(number), undisturbed.old)
        output = directory if how == "in-place" else tmp_path / f"{number}-out"
        words = _words(directory, output)
        for attempt in range(1 + (number % 4 == 0)):
            resuming = (output / JOURNAL).exists()
            if attempt and not resuming:
                break
            child = _started([*words, *(["--resume"] if resuming else [])])
            time.sleep(moments.uniform(0, undisturbed.seconds))
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        _finishes(words, directory, output, undisturbed)
    assert killed >= KILLS // 4, f"seed {seed}: too few runs were killed at work"


def test_interrupted(tmp_path: Path, undisturbed: Undisturbed) -> None:
    old, new = undisturbed.old, undisturbed.new
    for number in range(4, 16, 3):
        directory = stored(tmp_path / str(number), old)
        words = [str(directory), "--in-place", *CHAIN]
        status = _in_child(words, _at(number, signal.SIGINT))
        assert os.waitstatus_to_exitcode(status) == 130
        left = content(directory)
        assert left.pop(JOURNAL)
        assert left.keys() == old.keys() and all(left[name] in (old[name], new[name]) for name in old)
        assert main(["convert", *words, *RECORDED]) == 2, "a second run must not start anew unasked"
        assert main(["convert", *words[:-1], "pc-q35-7.2", *RECORDED, "--resume"]) == 2, "nor go on differently"
        assert main(["convert", *words, *RECORDED, "--resume"]) == 0
        assert content(directory) == new


def test_resumes_behind_a_half_written_line(tmp_path: Path, undisturbed: Undisturbed) -> None:
    directory = stored(tmp_path, undisturbed.old)
    words = _words(directory, directory)
    _in_child(words, _at(GROUP, signal.SIGKILL))
    with (directory / JOURNAL).open("a") as journal:
        journal.write('["4.xml", "93')
    _in_child([*words, "--resume"], _at(2 * GROUP, signal.SIGKILL))
    _finishes(words, directory, directory, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 pages."""
    place = tmp_path / "disk"
    place.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={96 * PAGE},mode=700,uid={os.geteuid()}"
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", options, "cpumap-test", str(place)], check=True)
    yield place
    subprocess.run([*root, "umount", str(place)], check=True)


def _fill(disk: Path, free: int) -> None:
    """Leaves so many pages of the file system free."""
    available = os.statvfs(disk).f_bavail - free
    (disk / "filler").write_bytes(b"x" * available * PAGE)
    assert os.statvfs(disk).f_bavail == free


@pytest.mark.live
@pytest.mark.parametrize("how", [("--in-place",), ("--in-place", "--backup-dir"), ("--output-dir",)], ids=" ".join)
def test_disk_full(
    small_disk: Path, undisturbed: Undisturbed, how: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is the first thing that there is no room for: said, nothing half-written, and finished with room."""
    old, new = undisturbed.old, undisturbed.new
    written = []
    for free in range(14):
        directory = stored(small_disk / "etc", old)
        out = small_disk / "out"
        output = directory if "--in-place" in how else out
        words = [str(directory), *how, *([str(out)] if how != ("--in-place",) else []), *CHAIN]
        _fill(small_disk, free)
        code = main(["convert", *words, *RECORDED])
        said = "".join(capsys.readouterr())
        assert code == 0 or (code == 3 and "No space left on device" in said), (free, said)
        kept = {name: data for name, data in content(output).items() if name != JOURNAL}
        assert all(data in (old[name], new[name]) for name, data in kept.items()), free
        written.append(sum(data == new[name] for name, data in kept.items()))
        (small_disk / "filler").unlink()
        assert content(directory).keys() - {JOURNAL} == old.keys()
        if code:
            _finishes(words, directory, output, undisturbed, out if how != ("--in-place",) else directory)
        shutil.rmtree(directory)
        shutil.rmtree(out, ignore_errors=True)
    assert min(written) == 0 < len(set(written) - {0, DISTURBED}), "somewhere between nothing and everything"


def test_a_document_that_cannot_be_made_to_last(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Network file systems and thin disks find out at fsync."""
    directory = stored(tmp_path / "etc", undisturbed.old)
    synced = os.fsync

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == ".3.xml.cpumap":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        synced(handle)

    words = _words(directory, directory)
    monkeypatch.setattr("os.fsync", fail)
    assert main(["convert", *words, *RECORDED]) == 3
    out, err = capsys.readouterr()
    assert f"failed: {directory}/3.xml: {os.strerror(errno.EDQUOT)}\n" in out and "--resume goes on" in err
    left = content(directory)
    assert left.pop(JOURNAL) and left == {**undisturbed.new, "3.xml": undisturbed.old["3.xml"]}
    monkeypatch.setattr("os.fsync", synced)
    _finishes(words, directory, directory, undisturbed)
