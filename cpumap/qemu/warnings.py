"""What QEMU's messages say: features that it cannot give, names that it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = r": (?P<words>(?:CPUID|MSR)\S*?\.(?P<name>[a-z0-9_.-]+) \[bit \d+\])"


_LACK = re.compile(r"doesn't support requested feature" + _WORDS)


UNMET = re.compile(r"depends on other features that were not requested" + _WORDS)


ASKED_IN_VAIN = re.compile(
    r"CPU model '.*' not found|[Pp]roperty '.*' not found|unable to find CPU model"
    r"|Invalid parameter type for|Parameter '.*' expects|Property '.*' doesn't take value|value of "
    r"property '.*' must"
)
"""How QEMU words what it was asked for in vain: the input's fault, not its own."""


def lacking(warnings: Iterable[str], warning: re.Pattern[str] = _LACK) -> dict[str, str]:
    """Property name → words, of every feature that QEMU's warnings say cannot be given.

    QEMU 5.2 to 10.0 write `CPUID.07H:EBX.avx2 [bit 5]`, 11.1 `CPUID[eax=07h,ecx=00h].EBX.avx2 [bit
    5]`.
    """
    found = (warning.search(line) for line in warnings)
    return {match["name"]: match["words"] for match in found if match}
