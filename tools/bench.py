"""Ratios that say what cpumap costs, each measured against its yardstick in the same run.

tools/bench.py [NAME...]     default: all; --list names them

A benchmark is a function here with the decorator `benchmark`; it returns the seconds of one run of
the thing measured and of its yardstick. Runs of the two alternate, and the medians are compared, so
that a machine that is busy with something else slows both down. Of whole processes, CPU time
counts.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpumap.libvirt.cpu_map.map import CpuMap
    from cpumap.sources.live import QemuSource

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "data/examples/web-server.xml"
Measure = Callable[[], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is measured, what against, and how often."""

    title: str
    yardstick: str
    runs: int
    measure: Measure


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(title: str, yardstick: str, runs: int = 15) -> Callable[[Measure], Measure]:
    """Makes the function below a benchmark under its own name."""

    def register(measure: Measure) -> Measure:
        BENCHMARKS[measure.__name__.replace("_", "-")] = Benchmark(title, yardstick, runs, measure)
        return measure

    return register


@cache
def _environment() -> dict[str, str]:
    """With byte code kept, as an installed package has it."""
    kept = tempfile.mkdtemp(prefix="cpumap-bench-")
    atexit.register(shutil.rmtree, kept)
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    own = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**own, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": kept}


def _process_seconds(*command: str | Path) -> float:
    """CPU seconds of a whole process, its own and the kernel's for it."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=ROOT, env=_environment())
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(map(str, command))}")
    return used.ru_utime + used.ru_stime


@benchmark("translate of one file, recorded data", "python -c 'import lxml.etree'", runs=25)
def start_up() -> tuple[float, float]:
    """A whole process each: what a script that calls cpumap once per domain pays."""
    python = (sys.executable, "-m", "cpumap", "translate", "--recorded", "7.2")
    return (
        _process_seconds(*python, EXAMPLE),
        _process_seconds(sys.executable, "-c", "import lxml.etree"),
    )


@benchmark("full expansions of all models of QEMU 7.2", "one bare start of that QEMU", runs=5)
def expansions() -> tuple[float, float]:
    """One pipeline of questions to a QEMU that runs, as `record` and the tests ask them."""
    from cpumap.cpu.expansion import CpuModel

    source = _qemu()
    machine = next(machine.name for machine in source.machines() if machine.alias == "q35")
    models = [
        CpuModel(definition.name)
        for definition in source.definitions(machine)
        if definition.name != "host"
    ]
    return _timed(lambda asked: source.expand_many(machine, asked, "full"), [models]), _bare_start()


@benchmark("recording the whole of QEMU 7.2 under tcg", "one bare start of that QEMU", runs=1)
def record() -> tuple[float, float]:
    """Every model under every machine type, what realize adds, what each feature brings along,
    and the check.
    """
    from cpumap.sources.record import record

    source = _qemu()
    return _timed(lambda reference: record(source, reference), [source]), _bare_start()


@cache
def _qemu() -> QemuSource:
    from cpumap.sources.live import QemuSource

    source = QemuSource(_binary())
    atexit.register(source.close)
    return source


def _binary() -> Path:
    directory = Path(os.environ.get("CPUMAP_QEMUS") or Path.home() / ".cache/cpumap-qemus")
    return directory / "bin/qemu-7.2"


def _bare_start() -> float:
    from cpumap.qemu.qmp import Session

    return _timed(lambda binary: Session.start(binary, ("-machine", "none")).close(), [_binary()])


HOST_CPU = (
    "<cpu><arch>x86_64</arch><model>{}</model><vendor>Intel</vendor><feature name='invtsc'/></cpu>"
)
HOST_MODELS = ("Haswell", "Broadwell", "Skylake-Server", "Icelake-Server", "Cascadelake-Server")
CALLS = 40


@benchmark(f"compare, {CALLS} calls, from XML to verdict", "libvirt-python: compareCPU", runs=7)
def compare() -> tuple[float, float]:
    """A guest's CPU beside a host's: a host's capabilities are read once, as libvirt has them."""
    from cpumap.hosts.read import read_cpus, read_host
    from cpumap.libvirt.rules.compare import compare

    connection, cpu_map = _libvirt(), _cpu_map()
    host = read_host(connection.getCapabilities(), cpu_map)
    guests = [
        f"<cpu match='exact'><model>{HOST_MODELS[n % len(HOST_MODELS)]}</model></cpu>"
        for n in range(CALLS)
    ]
    ours = _timed(
        lambda guest: compare(host, read_cpus(guest, cpu_map)[0], cpu_map).verdict, guests
    )
    return ours, _timed(connection.compareCPU, guests)


@benchmark(
    f"baseline of five hosts, {CALLS} calls, from XML to XML", "libvirt-python: baselineCPU", runs=7
)
def baseline() -> tuple[float, float]:
    """The CPU that five hosts have in common."""
    from cpumap.hosts.read import read_cpus
    from cpumap.libvirt.cpu_element import cpu_element
    from cpumap.libvirt.rules.baseline import baseline

    connection, cpu_map = _libvirt(), _cpu_map()
    hosts = [HOST_CPU.format(model) for model in HOST_MODELS]

    def ours(cpus: Sequence[str]) -> str:
        return cpu_element(
            baseline([cpu for text in cpus for cpu in read_cpus(text, cpu_map)], cpu_map)
        )

    return _timed(ours, [hosts] * CALLS), _timed(connection.baselineCPU, [hosts] * CALLS)


STORED = 3000
"""Documents of a fleet on disk."""

TEMPLATES = 8
"""Guests of which they are copies."""

REWRITE = """
import sys
from pathlib import Path
from lxml import etree
for path in sorted(Path(sys.argv[1]).iterdir()):
    with open(path, "rb") as file:
        data = file.read()
    with open(Path(sys.argv[2], path.name), "wb") as file:
        file.write(etree.tostring(etree.fromstring(data)))
"""


@benchmark(
    f"convert --jobs 1, {STORED} files of 3 KB, durable, a whole process",
    "lxml: parse, serialise and write the same",
    runs=3,
)
def convert_small() -> tuple[float, float]:
    """Cold: it starts, learns what it needs from a recording, and puts every document in place."""
    return _rewritten(3)


@benchmark(
    f"convert --jobs 1, {STORED} files of 10 KB, durable, a whole process",
    "lxml: parse, serialise and write the same",
    runs=3,
)
def convert_large() -> tuple[float, float]:
    """The same, with more devices."""
    return _rewritten(22)


def _rewritten(disks: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="cpumap-bench-") as place:
        fleet, ours, theirs = (Path(place, name) for name in ("fleet", "ours", "theirs"))
        for directory in (fleet, theirs):
            directory.mkdir()
        for number in range(STORED):
            (fleet / f"vm-{number:05}.xml").write_bytes(_copy(number, disks))
        options = ("--jobs", "1", "--recorded", "7.2", "--output-dir", ours)
        return (
            _process_seconds(sys.executable, "-m", "cpumap", "convert", fleet, *options),
            _process_seconds(sys.executable, "-c", REWRITE, fleet, theirs),
        )


def _copy(number: int, disks: int) -> bytes:
    """A guest made from a template, with so many disks."""
    import generate_domains

    file_name, document = generate_domains.domain(number % TEMPLATES)
    text = document.decode().replace(file_name.removesuffix(".xml"), f"vm-{number:05}")
    devices = "".join(
        generate_domains.DISK.format(
            name=f"vm-{number:05}", n=n, letter=chr(97 + n), serial=number, bus=0, slot=n + 3
        )
        for n in range(disks)
    )
    head, tail = text.partition("    <controller ")[0], text.partition("    <serial ")[2]
    return f"{head}{devices}    <serial {tail}".encode()


FLEET = 10_000
"""Generated domains, 4 to 20 KB each."""


@benchmark(
    f"convert, {FLEET} domains of 250 kinds, warm, one core",
    "lxml: parse and serialise the same",
    runs=3,
)
def convert() -> tuple[float, float]:
    """CPU seconds of reading documents and putting explicit CPUs into them, from bytes to bytes."""
    from lxml import etree

    fleet = _fleet()
    ours = _cpu_seconds(lambda: _converted(fleet))
    return ours, _cpu_seconds(
        lambda: [etree.tostring(etree.fromstring(document.data)) for document in fleet]
    )


NATIVE = 30


@benchmark(
    f"convert, {NATIVE} domains, warm, one core", "libvirt-python: domainXMLToNative", runs=3
)
def convert_native() -> tuple[float, float]:
    """Beside libvirt's own way from domain XML to QEMU's command line; domains with a CPU that
    this host can run.
    """
    fleet = _fleet()
    accepted, native = _accepted()
    ours = _cpu_seconds(lambda: _converted([fleet[number] for number in accepted]))
    return ours, _timed(native, [fleet[number].data.decode() for number in accepted])


@cache
def _accepted() -> tuple[list[int], Callable[[str], object]]:
    """The numbers of domains that libvirt translates on this host, and its way of doing so."""
    import libvirt

    connection = _libvirt()

    def native(text: str) -> object:
        return connection.domainXMLToNative("qemu-argv", text, 0)

    libvirt.registerErrorHandler(lambda *_: None, None)
    found: list[int] = []
    for document in _fleet():
        with suppress(libvirt.libvirtError):
            native(document.data.decode())
            found.append(document.number)
        if len(found) == NATIVE:
            break
    return found, native


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _converted(fleet: Sequence[Any]) -> None:
    from cpumap.fleet.convert import Outcome, convert_batch

    for start in range(0, len(fleet), 32):
        for outcome in convert_batch("bench", fleet[start : start + 32]):
            if not isinstance(outcome, Outcome) or outcome.status != "converted":
                raise SystemExit(f"not converted: {outcome}")


@cache
def _fleet() -> list[Any]:
    """The domains, once this process has learnt every answer they need, from the recording of
    QEMU 7.2.
    """
    import generate_domains

    from cpumap.fleet.convert import Answers, Question, Stored, convert_batch
    from cpumap.libvirt.words import libvirt_map
    from cpumap.sources.choose import Wanted

    fleet = [Stored(number, *generate_domains.domain(number)) for number in range(FLEET)]
    source = Answers(Wanted(recorded="7.2"), _cpu_map(), libvirt_map())
    for start in range(0, FLEET, 500):
        documents = fleet[start : start + 500]
        questions = [
            found for found in convert_batch("bench", documents) if isinstance(found, Question)
        ]
        convert_batch(
            "bench", [], {question.key: source.answer(question) for question in questions}
        )
    return fleet


def _timed(call: Callable[[Any], object], inputs: Sequence[Any]) -> float:
    """Seconds for a call with each of the inputs."""
    start = time.perf_counter()
    for given in inputs:
        call(given)
    return time.perf_counter() - start


@cache
def _cpu_map() -> CpuMap:
    """Read once, as libvirtd does."""
    from cpumap.libvirt.cpu_map.load import load_cpu_map

    return load_cpu_map()


@cache
def _libvirt() -> Any:
    """A connection to a real libvirtd, the one that runs or one started for this."""
    sys.path.insert(0, str(ROOT))
    from tests.support.libvirtd import connection

    closing = ExitStack()
    atexit.register(closing.close)
    return closing.enter_context(connection())


def _measured(bench: Benchmark) -> str:
    bench.measure()  # warms the page cache and the byte code
    pairs = [bench.measure() for _ in range(bench.runs)]
    ours, yardstick = (median(column) for column in zip(*pairs, strict=True))
    times = f"{ours * 1000:8.1f} ms  {yardstick * 1000:8.1f} ms  {ours / yardstick:6.2f}"
    return f"{times}  {bench.title} / {bench.yardstick}"


def main() -> int:
    """Runs the benchmarks named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name the benchmarks, run none")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    if arguments.list:
        print(*BENCHMARKS, sep="\n")
        return 0
    print(f"{'measured':>11}  {'yardstick':>11}  {'ratio':>6}  what (medians)")
    for name in arguments.names or BENCHMARKS:
        print(_measured(BENCHMARKS[name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
