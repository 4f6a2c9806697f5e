"""Conversions cut short, on full disks, beside each other: nothing is lost, nothing
half-written, the rest is done.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpumap.cli.main import main
from cpumap.fleet import calls
from cpumap.fleet import run as convert_run
from cpumap.fleet.journal import JOURNAL
from cpumap.fleet.write import Writer
from tests.support.documents import RECORDED, content, convert, small, stored


def test_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = stored(tmp_path, {"a.xml": small(), "b.xml": small("b")})

    def edit(step: str) -> None:
        if step == "journaled":
            (directory / "a.xml").write_bytes(b"edited")

    monkeypatch.setattr("cpumap.fleet.calls.Writer", functools.partial(Writer, on_step=edit))
    assert convert(directory, "--in-place") == 3
    assert (directory / "a.xml").read_bytes() == b"edited" and (
        directory / "b.xml"
    ).read_bytes() != small("b")
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


def test_changed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": small(), "busy.xml": small()})
    looked_at = os.fstat

    def write_and_look(handle: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "busy.xml":
            with (directory / "busy.xml").open("ab") as file:
                file.write(b" ")
        return looked_at(handle)

    monkeypatch.setattr("os.fstat", write_and_look)
    assert convert(directory, "--in-place") == 3
    assert f"failed: {directory}/busy.xml: changed while it was read\n" in capsys.readouterr().out
    assert (directory / "busy.xml").read_bytes() == small() + b"  " and (
        directory / "a.xml"
    ).read_bytes() != small()


def test_a_vast_document_that_is_not_too_large(tmp_path: Path) -> None:
    filling = b"<!-- filling -->\n" * 900_000
    directory = stored(tmp_path / "etc", {"a.xml": small() + filling})
    assert convert(directory, "--in-place") == 0
    written = (directory / "a.xml").read_bytes()
    assert written.endswith(filling) and b"<qemu:arg value='-global'/>" in written


@pytest.mark.live
def test_one_broken_among_ten_thousand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if os.access(memory, os.W_OK) else tmp_path
    ) as place:
        documents = {
            f"{n:05}.xml": small(str(n), ("Haswell", "EPYC")[n % 2]) for n in range(10_000)
        }
        directory = stored(
            Path(place, "in"), {**documents, "06000.xml": b"<domain type='kvm'>\n<name>"}
        )
        assert convert(directory, "--output-dir", Path(place, "out")) == 2
        out, err = capfd.readouterr()
        lines = [line for line in out.splitlines() if not line.startswith("converted: ")]
        assert lines == [
            f"failed: {directory}/06000.xml:2: not well-formed XML: Premature end of data in tag "
            "name line 2"
        ]
        assert "cpumap: 10000 documents: 9999 converted, 1 failed in " in err
        written = content(Path(place, "out"))
    assert written.keys() == documents.keys() - {"06000.xml"}
    assert all(
        b"<qemu:arg value='-global'/>" in data and data.endswith(b"</domain>\r\n")
        for data in written.values()
    )


def test_two_in_trees_that_overlap(tmp_path: Path) -> None:
    """Both at work at once: each document is converted by one of them, and whole."""
    old = {f"sub/{n:02}.xml": small(str(n), ("Haswell", "EPYC")[n % 2]) for n in range(30)}
    alone, directory = stored(tmp_path / "alone", old), stored(tmp_path / "etc", old)
    assert convert(alone, "--in-place") == 0
    children = [
        _started([str(path), "--in-place"]) for path in (directory, directory / "sub", directory)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, 3}
    assert convert(directory, "--in-place") == 0
    assert content(directory) == content(alone)


UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"]
    if os.geteuid() == 0
    else []
)
"""Makes of root a user whom the modes of files stop, who still owns them."""


@pytest.mark.live
def test_what_the_user_may_not_change(tmp_path: Path) -> None:
    names = ("free/a.xml", "shut/b.xml", "hidden/c.xml", "free/d.xml", "free/e.xml")
    directory = stored(tmp_path / "etc", {name: small(name) for name in names})
    modes = {"free/d.xml": 0o000, "free/e.xml": 0o444, "shut": 0o555, "hidden": 0o000}
    for name, mode in modes.items():
        (directory / name).chmod(mode)
    command = [
        *UNPRIVILEGED,
        sys.executable,
        "-m",
        "cpumap",
        "convert",
        str(directory),
        "--in-place",
        *RECORDED,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        for name in modes:
            (directory / name).chmod(0o755)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        f"converted: {directory}/free/a.xml",
        f"failed: {directory}/free/d.xml: Permission denied",
        f"failed: {directory}/free/e.xml: read-only, left alone",
        f"failed: {directory}/hidden: Permission denied",
        f"failed: {directory}/shut/b.xml: Permission denied",
    ]
    left = content(directory)
    left.pop(JOURNAL)
    assert left.pop("free/a.xml") != small("free/a.xml")
    assert left == {name: small(name) for name in names[1:]}


@pytest.mark.live
def test_a_directory_in_which_nothing_can_be_written(tmp_path: Path) -> None:
    directory = stored(tmp_path / "etc", {"a.xml": small()})
    directory.chmod(0o555)
    for words in (
        ["--in-place"],
        ["--output-dir", str(directory / "out")],
        ["--output-dir", str(directory / "a.xml/b")],
    ):
        given = directory if words == ["--in-place"] else directory / "a.xml"
        command = [
            *UNPRIVILEGED,
            sys.executable,
            "-m",
            "cpumap",
            "convert",
            str(given),
            *words,
            *RECORDED,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"cpumap: {directory}") and done.stderr.count("\n") == 1
    directory.chmod(0o755)
    assert content(directory) == {"a.xml": small()}


DISTURBED = 6
"""Documents in a run that is cut short, two in a group."""

GROUP = 5
"""Steps of a group of two."""

PAGE = os.sysconf("SC_PAGESIZE")

KILLS = int(os.environ.get("CPUMAP_KILLS", "50"))
"""Runs that are killed at a moment that nobody chose."""


def _started(words: Sequence[str], on_step: Callable[[str], None] = lambda _: None) -> int:
    """The process that runs a conversion, two documents in a group; imports and answers it has
    from this one.
    """
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    try:
        convert_run.BATCH = 2
        setattr(calls, "Writer", functools.partial(Writer, on_step=on_step))  # noqa: B010 (mypy: it is a type)
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
    """What is there before and after a run that nothing cuts short, and how long it takes in a
    child.
    """

    old: dict[str, bytes]
    new: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    old = {
        f"{n}.xml": small(str(n), ("Haswell", "EPYC")[n % 2], "pc-q35-2.11")
        for n in range(DISTURBED)
    }
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
    return [
        str(directory),
        *(["--in-place"] if output == directory else ["--output-dir", str(output)]),
        *CHAIN,
    ]


def _finishes(
    words: Sequence[str],
    directory: Path,
    output: Path,
    undisturbed: Undisturbed,
    journal: Path | None = None,
) -> None:
    """What a killed run left is whole, and a second one makes of it what an undisturbed run
    makes.
    """
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
        assert output != directory or kept == old, (
            "without a journal, the run is complete or has done nothing"
        )
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
    """Half the kills in each way of writing; every fourth run that resumes is killed as well."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    span, killed, number = undisturbed.seconds, 0, 0
    while killed < KILLS // 2:
        number += 1
        directory = stored(tmp_path / str(number), undisturbed.old)
        output = directory if how == "in-place" else tmp_path / f"{number}-out"
        words = _words(directory, output)
        for resumed in range(1 + (number % 4 == 0)):
            if resumed and not (output / JOURNAL).exists():
                break
            child = _started([*words, *["--resume"] * resumed])
            time.sleep(moments.uniform(0, span))
            os.kill(child, signal.SIGKILL)
            if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                killed += 1
            else:
                span *= 0.9  # it was done already: the machine has become faster
        _finishes(words, directory, output, undisturbed)


def test_interrupted(tmp_path: Path, undisturbed: Undisturbed) -> None:
    old, new = undisturbed.old, undisturbed.new
    for number in range(4, 16, 3):
        directory = stored(tmp_path / str(number), old)
        words = [str(directory), "--in-place", *CHAIN]
        status = _in_child(words, _at(number, signal.SIGINT))
        assert os.waitstatus_to_exitcode(status) == 130
        left = content(directory)
        assert left.pop(JOURNAL)
        assert left.keys() == old.keys() and all(
            left[name] in (old[name], new[name]) for name in old
        )
        assert main(["convert", *words, *RECORDED]) == 2, "a second run must not start anew unasked"
        assert main(["convert", *words[:-1], "pc-q35-7.2", *RECORDED, "--resume"]) == 2, (
            "nor go on differently"
        )
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
    subprocess.run(
        [*root, "mount", "-t", "tmpfs", "-o", options, "cpumap-test", str(place)], check=True
    )
    yield place
    subprocess.run([*root, "umount", str(place)], check=True)


def _fill(disk: Path, free: int) -> None:
    """Leaves so many pages of the file system free."""
    available = os.statvfs(disk).f_bavail - free
    (disk / "filler").write_bytes(b"x" * available * PAGE)
    assert os.statvfs(disk).f_bavail == free


@pytest.mark.live
@pytest.mark.parametrize(
    "how", [("--in-place",), ("--in-place", "--backup-dir"), ("--output-dir",)], ids=" ".join
)
def test_disk_full(
    small_disk: Path,
    undisturbed: Undisturbed,
    how: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is the first thing that there is no room for: said, nothing half-written, and
    finished with room.
    """
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
            _finishes(
                words, directory, output, undisturbed, out if how != ("--in-place",) else directory
            )
        shutil.rmtree(directory)
        shutil.rmtree(out, ignore_errors=True)
    assert min(written) == 0 < len(set(written) - {0, DISTURBED}), (
        "somewhere between nothing and everything"
    )


def test_a_document_that_cannot_be_made_to_last(
    tmp_path: Path,
    undisturbed: Undisturbed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
    assert (
        f"failed: {directory}/3.xml: {os.strerror(errno.EDQUOT)}\n" in out
        and "--resume goes on" in err
    )
    left = content(directory)
    assert left.pop(JOURNAL) and left == {**undisturbed.new, "3.xml": undisturbed.old["3.xml"]}
    monkeypatch.setattr("os.fsync", synced)
    _finishes(words, directory, directory, undisturbed)
