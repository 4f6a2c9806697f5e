"""Run by `libvirt_code` with a libvirt of its own choice: answers JSON lines with that libvirt's
code.

The functions asked are those that its drivers call; they are exported for the drivers, not
promised to anybody, so each release is checked by what it answers.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

HOST, GUEST, EITHER = 0, 1, 2
"""What an element describes (virCPUType)."""
DISABLE = 3
"""A policy (virCPUFeaturePolicy)."""
NO_ARCH = 0
"""What leaves it to the CPUs (virArch)."""
USABLE = {True: 1, False: 2}
"""Whether a model can be run (virDomainCapsCPUUsable)."""

_library = ctypes.CDLL("libvirt.so.0")
Pointer = ctypes.c_void_p


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, name)
    function.restype, function.argtypes = result, arguments
    return function


_int, _text, _flag = ctypes.c_int, ctypes.c_char_p, ctypes.c_bool
_several = ctypes.POINTER(Pointer)
_texts = ctypes.POINTER(_text)

_parse = _function("virCPUDefParseXMLString", _int, _text, _int, _several, _flag)
_format = _function("virCPUDefFormat", Pointer, Pointer, Pointer)
_new = _function("virCPUDefNew", Pointer)
_compare = _function("virCPUCompare", _int, _int, Pointer, Pointer, _flag)
_update = _function("virCPUUpdate", _int, _int, Pointer, Pointer, _int)
_translate = _function("virCPUTranslate", _int, _int, Pointer, Pointer)
_migratable = _function("virCPUCopyMigratable", Pointer, _int, Pointer)
_decode = _function("cpuDecode", _int, Pointer, Pointer, Pointer)
_data = _function("virCPUDataParse", Pointer, _text)
_models = _function("virDomainCapsCPUModelsNew", Pointer, ctypes.c_size_t)
_add_model = _function(
    "virDomainCapsCPUModelsAdd", _int, Pointer, _text, _int, _texts, _flag, _text, _text
)
_error = _function("virGetLastErrorMessage", _text)
_reset = _function("virResetLastError", None)
_arch = _function("virArchFromString", _int, _text)
_list = _function("virCPUDefListParse", _several, _texts, ctypes.c_uint, _int)
_baseline = _function(
    "virCPUBaseline", Pointer, _int, _several, ctypes.c_uint, Pointer, _texts, _flag
)
_expand = _function("virCPUExpandFeatures", _int, _int, Pointer)
_silence = _function("virSetErrorFunc", None, Pointer, ctypes.CFUNCTYPE(None, Pointer, Pointer))


class RefusedError(Exception):
    """libvirt's own words."""


def _checked(result: Any, failed: bool) -> Any:
    if failed:
        raise RefusedError((_error() or b"").decode())
    return result


def _element(xml: str, kind: int) -> Any:
    parsed = Pointer()
    _checked(None, _parse(xml.encode(), kind, ctypes.byref(parsed), False) < 0)
    return parsed


def _written(cpu: Any) -> str:
    return ctypes.string_at(_checked(_format(cpu, None), False)).decode()


def _texts_of(texts: list[str]) -> Any:
    return (_text * (len(texts) + 1))(*(text.encode() for text in texts), None)


def _usable(models: dict[str, list[str] | None] | None) -> Any:
    """Models with what keeps them from being run: None for one that is not known to be usable."""
    if models is None:
        return None
    known = _models(len(models))
    for name, blockers in models.items():
        words = _texts_of(blockers) if blockers else None
        _add_model(known, name.encode(), USABLE[not blockers], words, False, None, None)
    return known


def compare(host: str, cpu: str, fail: bool) -> int:
    verdict: int = _compare(X86, _element(host, HOST), _element(cpu, EITHER), fail)
    return int(_checked(verdict, verdict < 0))


def baseline(
    cpus: list[str], expand: bool, migratable: bool, models: dict[str, list[str] | None] | None
) -> str:
    """As the QEMU driver answers virConnectBaselineCPU."""
    parsed = _list(_texts_of(cpus), len(cpus), HOST)
    _checked(parsed, not parsed)
    cpu = _baseline(NO_ARCH, parsed, len(cpus), _usable(models), None, migratable)
    _checked(cpu, not cpu)
    if expand:
        _checked(None, _expand(X86, cpu) < 0)
    return _written(cpu)


def decode(data: str, guest: bool, models: dict[str, list[str] | None] | None) -> str:
    cpu = _element("<cpu match='exact'><topology sockets='1' cores='1' threads='1'/></cpu>", GUEST)
    if not guest:
        cpu = _new()
    parsed = _data(data.encode())
    _checked(parsed, not parsed)
    _checked(None, _decode(cpu, parsed, _usable(models)) < 0)
    return _written(cpu)


def update(host: str, cpu: str, models: dict[str, list[str] | None] | None) -> str:
    """As the QEMU driver does before it starts a guest: on a migratable copy of the host."""
    guest = _element(cpu, GUEST)
    copy = _migratable(X86, _element(host, GUEST))
    _checked(None, _update(X86, guest, _checked(copy, not copy), DISABLE) < 0)
    if models is not None:
        _checked(None, _translate(X86, guest, _usable(models)) < 0)
    return _written(guest)


ANSWERS: dict[str, Callable[..., Any]] = {
    "compare": compare,
    "baseline": baseline,
    "decode": decode,
    "update": update,
}


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    _reset()
    try:
        return {"answer": ANSWERS[question.pop("ask")](**question)}
    except RefusedError as refusal:
        return {"refused": str(refusal)}


if __name__ == "__main__":
    _function("virInitialize", _int)()
    _keep = ctypes.CFUNCTYPE(None, Pointer, Pointer)(lambda data, error: None)
    _silence(None, _keep)
    X86 = _arch(b"x86_64")
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
