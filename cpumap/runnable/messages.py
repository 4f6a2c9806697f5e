"""What people paste: lines of QEMU's, libvirt's and others' logs, read for CPU features and models.

What messages look like, what they say and what to do about them is data: `data/messages.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from cpumap.cpu.bits import BitPlace, read_register
from cpumap.system.data import data_path

Subject = Literal["feature", "model", "bit", "word"]
"""What a mention names; `word`: it only stands there, and may be anything or nothing."""

_NAME = r"'?[A-Za-z0-9][\w.+-]*'?"
_NAMES = rf"{_NAME}(?:\s*,\s*(?!\w+ features?:){_NAME})*"
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
"""Straight quotes, and those that translated messages and chat programs write."""

_MSR_HALF = 32
_VMX_CONTROLS = range(0x481, 0x486)
_VMX_TRUE_CONTROLS = range(0x48B, 0x491)

_PLACES = (
    re.compile(
        r"CPUID[.\[(]+(?:eax=)?(?:0x)?(?P<leaf>[0-9a-f]+)h?"
        r"(?:,\s*ecx=(?:0x)?(?P<subleaf>[0-9a-f]+)h?)?[\])]?"
        r"[:.](?P<register>e[abcd]x)(?:\.[a-z][\w.-]*)?\s*\[?bits?\s+(?P<bit>\d+)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:CPUID|leaf)\s+0x(?P<leaf>[0-9a-f]+)(?:[.,]\s*(?:0x)?(?P<subleaf>[0-9a-f]+))?"
        r"[.:,\s]+(?P<register>e[abcd]x)[.,:]?\s*\[?bits?\s+(?P<bit>\d+)\b(?!x)",
        re.IGNORECASE,
    ),
    re.compile(
        r"MSR\s*\(?(?:0x)?(?P<msr>[0-9a-f]+)h?\)?(?:\.[a-z][\w.-]*)?\s*\[?bits?\s+(?P<bit>\d+)",
        re.IGNORECASE,
    ),
)
"""A bit by its leaf, register and number, in the notations of QEMU, libvirt, manuals and cpumap."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a message says, and what to do about it; `{name}` in it stands for what it names."""

    kind: str = ""
    """`missing`, `extra`, `forbidden`, … ; empty where something was only named."""
    says: str = ""
    do: str = ""


NO_ADVICE = Advice()


@dataclass(frozen=True, slots=True)
class Mention:
    """Something that the text names."""

    name: str
    subject: Subject
    advice: Advice = NO_ADVICE
    bits: tuple[BitPlace, ...] = ()
    """Where the text says that it sits; any of these, where a notation is not unique."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says: what it names, in order, and messages that name nothing."""

    mentions: tuple[Mention, ...] = ()
    stories: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Message:
    pattern: re.Pattern[str]
    advice: Advice


@cache
def _messages() -> tuple[_Message, ...]:
    stored = tomllib.loads(data_path("messages.toml").read_text(encoding="utf-8"))
    return tuple(
        _Message(
            re.compile(entry["pattern"].replace("NAMES", _NAMES)),
            Advice(entry["kind"], entry["says"], entry["do"]),
        )
        for entry in stored["message"]
    )


def read_messages(text: str) -> Reading:
    """What the text says of CPUs; a plain list of names is a mention of each."""
    separate = re.sub(r",\s*(?=(?:missing|extra) features:)", "; ", text)
    found, rest = _known_messages(separate)
    mentions = [*(mention for _, part in found for mention in part.mentions), *_bits_in(rest)]
    stories = [story for _, part in found for story in part.stories]
    if not mentions and not stories:
        return Reading(tuple(_words(text)))
    return Reading(tuple(dict.fromkeys(mentions)), tuple(dict.fromkeys(stories)))


def _known_messages(text: str) -> tuple[list[tuple[int, Reading]], str]:
    """Each message by its place in the text, and the text without them."""
    found: list[tuple[int, Reading]] = []
    for message in _messages():
        matches = message.pattern.finditer(text)
        found.extend((match.start(), _reading(match, message.advice)) for match in matches)
        text = message.pattern.sub(lambda match: " " * len(match[0]), text)
    return sorted(found, key=lambda entry: entry[0]), text


def _reading(match: re.Match[str], advice: Advice) -> Reading:
    named = match.groupdict()
    mentions = tuple(_mentions(named, advice, match[0]))
    return Reading(mentions) if mentions else Reading((), (advice,))


def _mentions(named: Mapping[str, str | None], advice: Advice, whole: str) -> Iterator[Mention]:
    bits = tuple(bit for pattern in _PLACES for bit in _bits_of(pattern.search(whole)))
    feature = named.get("feature")
    if feature:
        yield Mention(feature.strip("'."), "feature", advice, bits)
    elif bits:
        yield Mention("", "bit", advice, bits)
    for name in (named.get("features") or "").split(","):
        if name.strip():
            yield Mention(name.strip().strip("'").rstrip("."), "feature", advice)
    model = (named.get("model") or "").rstrip(".")
    if model and model != "<null>" and not feature:
        yield Mention(model, "model", advice)


def _bits_in(text: str) -> Iterator[Mention]:
    for pattern in _PLACES:
        for match in pattern.finditer(text):
            yield Mention("", "bit", NO_ADVICE, tuple(_bits_of(match)))


def _bits_of(match: re.Match[str] | None) -> Iterator[BitPlace]:
    """The bit of a notation; QEMU counts VMX controls in the high half of their MSR."""
    if match is None:
        return
    named = match.groupdict()
    number = int(named["bit"] or "0")
    if named.get("msr"):
        index = int(named["msr"] or "", 16)
        yield index, 0, "msr", number
        if (index in _VMX_CONTROLS or index in _VMX_TRUE_CONTROLS) and number < _MSR_HALF:
            yield index, 0, "msr", number + _MSR_HALF
        return
    subleaf = int(named.get("subleaf") or "0", 16)
    yield int(named["leaf"] or "", 16), subleaf, read_register(str(named["register"])), number


def _words(text: str) -> Iterator[Mention]:
    """The names in a plain list, or what stands in quotes in a sentence that nobody knows."""
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    names = [word.strip("'\"`+:").rstrip(".") for word in words]
    if all(re.fullmatch(_NAME, name) for name in names):
        yield from (Mention(name, "word") for name in dict.fromkeys(names))
        return
    quoted = re.findall(rf"[{_QUOTES}]([A-Za-z][\w.-]*)[{_QUOTES}]", text)
    yield from (Mention(name, "word") for name in dict.fromkeys(quoted))
