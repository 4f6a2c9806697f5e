"""Mutates every kind of input, for as long as one likes: each run must end soon, with a documented
exit code and without a word about something unforeseen.

The same seed and number give the same input: `--seed S --only N` repeats what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import io
import json
import lzma
import random
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz_qmp import Peer

from cpumap.cli.main import main as cpumap_main
from cpumap.cpu.expansion import Machine
from cpumap.fleet.journal import JOURNAL
from cpumap.sources.kept import Kept
from cpumap.system.made import made

TREE = Path(__file__).resolve().parent.parent
EXAMPLES = TREE / "data/examples"
CODES = frozenset({0, 1, 2, 3, 130, 143})
TIME_LIMIT = 20
"""Seconds; the slowest honest run takes some two."""

TOKENS = [
    *(b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?xml", b"?>", b"<!DOCTYPE d [", b"]>", b"&x;"),
    *(b"<", b">", b"/>", b"'", b'"', b"=", b",", b"+", b"-", b"{", b"}", b"[", b"]", b":"),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J", b"\r\n"),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"0x", b"9" * 30, b"9" * 5000, b"[" * 2000),
    *(b"<cpu>", b"</cpu>", b"<domain>", b"<model>", b" name=''", b" policy='force'", b"xmlns:q"),
    *(b"host", b"max", b"base", b"none", b"kvm", b"Haswell-v1", b"../", b"/", b"on", b"off"),
    *(b"\\u0000", b"\xc2\x85", b"&lt;", b"<a>" * 500),
]  # fmt: skip

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**70, "", "x", "\0\x1b", "on", [], [[]], {}, {"a": {}}),
    *(["x"], [None], "9" * 100, {"name": 1}, [1, 2, 3, 4]),
]

CAPABILITIES = (
    b"<capabilities><host><cpu><arch>x86_64</arch><model>Haswell-noTSX</model>"
    b"<vendor>Intel</vendor><signature family='6' model='60' stepping='3'/>"
    b"<feature name='vme'/></cpu></host></capabilities>"
)
HOST = (
    b'{"schema": "cpumap.host/1", "arch": "x86_64", "model": "Haswell", "vendor": "Intel",'
    b' "features": {"vmx": true}, "signature": [6, 60, 3], "usable-models": ["Haswell"],'
    b' "properties": ["avx"], "context": {"machine": "pc-q35-7.2", "accel": "kvm"},'
    b' "options": [], "features-of": {"cpu": ["avx"], "kernel": null, "partial": false,'
    b' "msrs": true}}'
)
MAP = (
    b"<cpus><arch name='x86'><vendor name='Intel' string='GenuineIntel'/><feature name='avx'>"
    b"<cpuid eax_in='0x01' ecx='0x10000000'/></feature><model name='Haswell'><decode host='on'"
    b" guest='on'/><signature family='6' model='60'/><vendor name='Intel'/><feature name='avx'/>"
    b"</model></arch></cpus>"
)
OWN_CPU = b"-cpu Haswell,+vmx,-avx,hv-relaxed=on,family=6,vendor=GenuineIntel,enforce"
MESSAGE = (
    b"error: unsupported configuration: guest CPU doesn't match specification: extra features: ht,"
    b" missing features: svm,vmx-ept"
)


class Fuzzer:
    """The inputs of one seed, and what became of them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.seed = seed
        self.kinds: dict[str, Callable[[random.Random], int]] = {
            "domain": self._domain,
            "host": self._host,
            "lock": self._lock,
            "recording": self._recording,
            "journal": self._journal,
            "cache": self._cache,
            "map": self._map,
            "-cpu": self._own_cpu,
            "explain": self._explain,
            "QMP": self._qmp,
            "archive": self._archive,
        }
        self._domains = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.xml"))]
        lock = directory / "lock.json"
        _quiet(["lock", "--recorded", "7.2", "-o", str(lock), str(EXAMPLES / "emulated.xml")])
        self._locked = json.loads(lock.read_bytes())
        recordings = TREE / "data/x86_64/expansions"
        self._recorded = json.loads(next(recordings.glob("7.2*tcg.json")).read_bytes())

    def run(self, number: int) -> tuple[str, str]:
        """The kind of this input, and what is wrong with its run; empty where nothing is."""
        chance = random.Random(f"{self.seed}/{number}")
        kind = list(self.kinds)[number % len(self.kinds)]
        said = io.StringIO()
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(TIME_LIMIT)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(_Discarded()):
                code = self.kinds[kind](chance)
        except BaseException as err:  # what a command never lets through is what is looked for
            return kind, f"{type(err).__name__}: {err}"[:300]
        finally:
            signal.alarm(0)
        text = said.getvalue()
        if code not in CODES:
            return kind, f"exit {code}"
        odd = [line for line in text.splitlines() if "unforeseen" in line or "Traceback" in line]
        odd += [line for line in text.splitlines() if "\x1b" in line or "\0" in line]
        return kind, odd[0][:300] if odd else ""

    def _file(self, name: str, content: bytes) -> str:
        path = self.directory / name
        path.write_bytes(content)
        return str(path)

    def _domain(self, chance: random.Random) -> int:
        content = mutated(chance.choice(self._domains), chance)
        if chance.random() < 0.05:
            content = content.decode("latin-1").encode(chance.choice(["utf-16", "utf-32", "utf-8"]))
        file = self._file("domain.xml", content)
        command = chance.choice(
            [
                *(
                    ["translate", "--format", form]
                    for form in ("args", "xml", "readconfig", "json")
                ),
                *(["translate", "--pin", pin] for pin in ("none", "custom")),
                ["check"],
                ["convert", "--dry-run", "--diff"],
                ["lock"],
            ]
        )
        return cpumap_main([*command, "--recorded", "7.2", file])

    def _host(self, chance: random.Random) -> int:
        content = chance.choice(
            [mutated_json(HOST, chance), mutated(chance.choice([HOST, CAPABILITIES]), chance)]
        )
        file = self._file("host", content)
        example = str(EXAMPLES / "web-server.xml")
        return cpumap_main(
            chance.choice(
                [
                    ["check", "--recorded", "7.2", "--host", file, example],
                    ["compare", file, example],
                    ["baseline", file],
                    ["decode", file],
                ]
            )
        )

    def _lock(self, chance: random.Random) -> int:
        return cpumap_main(
            ["audit", "--recorded", "7.2", self._file("lock", mutated_json(self._locked, chance))]
        )

    def _recording(self, chance: random.Random) -> int:
        file = self._file("recording.json", mutated_json(self._recorded, chance))
        command = chance.choice([["translate", "--accel", "tcg"], ["models"], ["machines"]])
        example = [str(EXAMPLES / "emulated.xml")] if command[0] == "translate" else []
        return cpumap_main([*command, "--recorded", file, *example])

    def _journal(self, chance: random.Random) -> int:
        out = self.directory / "out"
        out.mkdir(exist_ok=True)
        entry = ["web-server.xml", "0" * 64, "converted", []]
        lines = [json.dumps(chance.choice(VALUES)) for _ in range(2)] + [json.dumps(entry)] * 2
        (out / JOURNAL).write_bytes(mutated("\n".join(lines).encode(), chance))
        words = ["convert", "--recorded", "7.2", "--output-dir", str(out)]
        resume = chance.choice([[], ["--resume"]])
        return cpumap_main([*words, *resume, str(EXAMPLES / "web-server.xml")])

    def _cache(self, chance: random.Random) -> int:
        directory = self.directory / "cache"

        def ask() -> tuple[Machine, ...]:
            return Kept(directory, "/bin/sh", "tcg").answer(
                ["machines"],
                lambda: [{"name": "q35", "cpu_max": 1}],
                lambda found: tuple(made(Machine, entry) for entry in found.entries()),
            )

        ask()
        for file in directory.rglob("*.json"):
            content = file.read_bytes()
            file.write_bytes(chance.choice([mutated, mutated_json])(content, chance))
        return 0 if all(isinstance(machine.name, str) for machine in ask()) else 9

    def _map(self, chance: random.Random) -> int:
        file = self._file("map.xml", mutated(MAP, chance))
        words = ["translate", "--recorded", "7.2", "--cpu-map", file]
        return cpumap_main([*words, str(EXAMPLES / "emulated.xml")])

    def _own_cpu(self, chance: random.Random) -> int:
        file = self._file("cpu", mutated(OWN_CPU, chance))
        return cpumap_main([chance.choice(["translate", "check"]), "--recorded", "10.0", file])

    def _explain(self, chance: random.Random) -> int:
        words = mutated(MESSAGE, chance).decode(errors="surrogateescape").replace("\0", "")
        return cpumap_main(["explain", "--", words])

    def _qmp(self, chance: random.Random) -> int:
        words = chance.choice(
            [["models"], ["machines"], ["expand", "Haswell"], ["expand", "qemu64"]]
        )
        with Peer(self.directory / "qmp", lambda answer: mutated_value(answer, chance)) as address:
            return cpumap_main([*words, "--qmp", address])

    def _archive(self, chance: random.Random) -> int:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for place, content in enumerate(self._domains):
                member = tarfile.TarInfo(chance.choice([f"a/{place}.xml", "../x.xml", "/x.xml"]))
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        plain = stream.getvalue()
        packed = chance.choice([plain, gzip.compress(plain), lzma.compress(plain)])
        file = self._file("a.tar", mutated(packed, chance))
        return cpumap_main(["convert", "--dry-run", "--recorded", "7.2", file])


class _Discarded(io.TextIOWrapper):
    """A standard output that nobody reads."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four things done to it."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(content))
        end = min(len(content), at + chance.choice([1, 1, 4, 30]))
        content = chance.choice(
            [
                content[:at] + chance.choice(TOKENS) + content[at:],
                content[:at] + chance.choice(TOKENS) + content[end:],
                content[:at] + content[end:],
                content[:end] + content[at:],
                content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
                content[:at]
                if chance.random() < 0.3
                else content[:at] + content[at:end] * 3 + content[end:],
            ]
        )
    return content


def mutated_json(content: bytes | Any, chance: random.Random) -> bytes:
    """The JSON with a value at one or two places, at any depth, made another."""
    try:
        value = (
            json.loads(content) if isinstance(content, bytes) else json.loads(json.dumps(content))
        )
    except ValueError:
        return mutated(content, chance)
    for _ in range(chance.randint(1, 2)):
        value = mutated_value(value, chance)
    return json.dumps(value).encode()


def mutated_value(value: Any, chance: random.Random) -> Any:
    """The value with one of those in it made another."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return copy.deepcopy(chance.choice(VALUES))  # what is put in may be changed again
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = chance.choice(places)
    if chance.random() < 0.1:
        value.pop(place)
    elif isinstance(value, dict) and chance.random() < 0.1:
        value[chance.choice(["", "x", "\x1b", "name"])] = value.pop(place)
    else:
        value[place] = mutated_value(value[place], chance)
    return value


class _TooLongError(BaseException):
    """No handler on the way may take it for an error of its own."""


def _too_long(*_: object) -> None:
    raise _TooLongError(f"no end within {TIME_LIMIT} s")


def _quiet(words: list[str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        code = cpumap_main(words)
    if code:
        raise SystemExit(f"{' '.join(words)}: exit {code}")


def findings(seed: int, numbers: Iterator[int], until: float) -> Iterator[tuple[int, str, str]]:
    """Number, kind and complaint of each input run; the complaint is empty where all is well."""
    with tempfile.TemporaryDirectory(prefix="cpumap-fuzz-") as directory:
        fuzzer = Fuzzer(Path(directory), seed)
        for number in numbers:
            yield number, *fuzzer.run(number)
            if time.monotonic() > until:
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=5000, help="inputs (default: 5000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--only", type=int, help="this input alone")
    arguments = parser.parse_args()
    only = arguments.only
    numbers = iter(range(arguments.number) if only is None else [only])
    began, runs, found = time.monotonic(), Counter[str](), 0
    for number, kind, wrong in findings(arguments.seed, numbers, began + arguments.seconds):
        runs[kind] += 1
        if wrong:
            found += 1
            print(f"{number} {kind}: {wrong!a}", flush=True)
    said = ", ".join(f"{count} {kind}" for kind, count in runs.items())
    seconds = time.monotonic() - began
    print(f"{runs.total()} inputs in {seconds:.0f} s, {found} findings; {said}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
