"""What in a domain, outside `<cpu>`, ends in QEMU's `-cpu`: timers, KVM features, Hyper-V
enlightenments, PMU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cpumap.cpu.names import Property, PropertyName, Value
from cpumap.cpu.origin import origin
from cpumap.system.xml_document import ULLONG_MAX, Document, first_child

TIMERS = ("platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock", "armvtimer")


ENLIGHTENMENTS = {
    "relaxed": "hv-relaxed",
    "vapic": "hv-vapic",
    "spinlocks": "hv-spinlocks",
    "vpindex": "hv-vpindex",
    "runtime": "hv-runtime",
    "synic": "hv-synic",
    "stimer": "hv-stimer",
    "reset": "hv-reset",
    "vendor_id": "hv-vendor-id",
    "frequencies": "hv-frequencies",
    "reenlightenment": "hv-reenlightenment",
    "tlbflush": "hv-tlbflush",
    "ipi": "hv-ipi",
    "evmcs": "hv-evmcs",
    "avic": "hv-avic",
    "emsr_bitmap": "hv-emsr-bitmap",
    "xmm_input": "hv-xmm-input",
}
"""libvirt's `<hyperv>` elements and QEMU's properties, in the order in which libvirt writes
them.
"""


ENLIGHTENMENT_EXTRAS = {
    "stimer": {"direct": "hv-stimer-direct"},
    "tlbflush": {"direct": "hv-tlbflush-direct", "extended": "hv-tlbflush-ext"},
}
"""Elements inside an enlightenment that are properties of their own."""


KVM_FEATURES: dict[str, tuple[str, bool, bool] | None] = {
    "hidden": ("kvm", True, False),
    "hint-dedicated": ("kvm-hint-dedicated", True, True),
    "poll-control": ("kvm-poll-control", True, True),
    "pv-ipi": ("kvm-pv-ipi", False, False),
    "dirty-ring": None,
}
"""libvirt's `<kvm>` elements: QEMU's property, the state in which libvirt writes it, and what it
then says.

dirty-ring belongs to the accelerator, not to the CPU.
"""


def domain_settings(document: Document, domain: Any) -> tuple[Property, ...]:
    """The properties in QEMU's names, in the order in which libvirt's QEMU driver writes them."""
    features, clock, devices = (
        first_child(domain, tag) for tag in ("features", "clock", "devices")
    )
    return (
        *_timers(document, _all(clock, "timer")),
        *_paravirtual(document, features),
        *_hyperv(document, _all(features, "hyperv")),
        *_panic(document, _all(devices, "panic")),
        *_kvm(document, _last(features, "kvm")),
        *_pmu(document, _last(features, "pmu")),
        *_of_machine(document, features),
    )


_SWITCHED = {"htm": "cap-htm", "nested-hv": "cap-nested-hv", "ccf-assist": "cap-ccf-assist"}


_WORKAROUNDS = ("broken", "workaround", "fixed")


_VALUED = {
    "cfpc": _WORKAROUNDS,
    "sbbc": _WORKAROUNDS,
    "ibs": ("broken", "workaround", "fixed-ibs", "fixed-ccd", "fixed-na"),
}
"""What libvirt has words for of ppc64's machine: element → its values, which are QEMU's (given to
`cap-cfpc` and so on; measured on libvirt 9.0).
"""


def _of_machine(document: Document, features: Any) -> Iterator[Property]:
    for element, name in _SWITCHED.items():
        found = _last(features, element)
        state = None if found is None else document.switch(found, "state")
        if state is not None:
            yield _property(name, state, element)
    for element, values in _VALUED.items():
        found = _last(features, element)
        if found is not None:
            value = document.choice(found, "value", values, required=True)
            yield _property(f"cap-{element}", value, element)
    hpt = _last(features, "hpt")
    if hpt is not None:
        yield from _page_table(document, hpt)


def _page_table(document: Document, hpt: Any) -> Iterator[Property]:
    resizing = document.choice(hpt, "resizing", ("enabled", "disabled", "required"))
    if resizing is not None:
        yield _property("resize-hpt", resizing, "hpt")
    size = _last(hpt, "maxpagesize")
    if size is not None:
        text, unit = (size.text or "").strip(), size.get("unit", "B")
        if not text.isdecimal() or len(text) > 15 or unit not in _UNITS:
            raise document.error(size, f"no page size: '{text} {unit}'")
        yield _property("cap-hpt-max-page-size", int(text) * _UNITS[unit], "hpt")


_UNITS = {
    unit: 1024**power
    for power, units in enumerate((("b", "B", "bytes"), ("K", "KiB"), ("M", "MiB"), ("G", "GiB")))
    for unit in units
}


def _property(name: str, value: Value, element: str) -> Property:
    return Property(PropertyName(name), value, origin("element", element))


def _all(parent: Any, tag: str) -> list[Any]:
    return [] if parent is None else list(parent.iterchildren(tag))


def _last(parent: Any, tag: str) -> Any:
    """Of an element that is there more than once, libvirt heeds the last."""
    elements = _all(parent, tag)
    return elements[-1] if elements else None


def _timers(document: Document, timers: list[Any]) -> Iterator[Property]:
    for timer in timers:
        name = document.choice(timer, "name", TIMERS, required=True)
        present = document.choice(timer, "present", ("yes", "no"))
        frequency = document.number(timer, "frequency", high=ULLONG_MAX)
        if frequency and name != "tsc":
            raise document.error(timer, f"timer {name} doesn't support setting of timer frequency")
        if name == "kvmclock" and present is not None:
            yield _property("kvmclock", present == "yes", "timer kvmclock")
        elif name == "hypervclock" and present == "yes":
            yield _property("hv-time", True, "timer hypervclock")
        elif name == "tsc" and frequency:
            yield _property("tsc-frequency", frequency, "timer tsc")


def _paravirtual(document: Document, features: Any) -> Iterator[Property]:
    apic, spinlock = _last(features, "apic"), _last(features, "pvspinlock")
    eoi = None if apic is None else document.switch(apic, "eoi")
    if eoi is not None:
        yield _property("kvm-pv-eoi", eoi, "apic eoi")
    if spinlock is not None:
        yield _property(
            "kvm-pv-unhalt", document.switch(spinlock, "state") is not False, "pvspinlock"
        )


def _hyperv(document: Document, elements: list[Any]) -> Iterator[Property]:
    states: dict[str, Any] = {}
    passthrough = False
    for element in elements:
        mode = document.choice(element, "mode", ("custom", "passthrough", "host-model"))
        if mode == "host-model":
            raise document.error(
                element,
                "hyperv mode 'host-model' depends on the host: name the enlightenments instead",
            )
        passthrough = mode == "passthrough"
        for child in element.iterchildren("*"):
            if child.tag not in ENLIGHTENMENTS:
                raise document.error(
                    child, f"unsupported HyperV Enlightenment feature: {child.tag}"
                )
            if document.switch(child, "state", required=True):
                states[child.tag] = child
            else:
                states.pop(child.tag, None)
    if passthrough:
        yield _property("hv-passthrough", True, "hyperv passthrough")
    for tag in ENLIGHTENMENTS:
        if tag in states:
            yield from _enlightenment(document, states[tag])


def _enlightenment(document: Document, element: Any) -> Iterator[Property]:
    where = f"hyperv {element.tag}"
    yield _property(ENLIGHTENMENTS[element.tag], _enlightenment_value(document, element), where)
    for child, name in ENLIGHTENMENT_EXTRAS.get(element.tag, {}).items():
        extra = element.find(child)
        if extra is not None and document.switch(extra, "state", required=True):
            yield _property(name, True, f"{where} {child}")


def _enlightenment_value(document: Document, element: Any) -> Value:
    if element.tag == "spinlocks":
        retries = document.number(element, "retries", required=True, base=0)
        if retries is None or retries < 0xFFF:
            raise document.error(element, f"HyperV spinlock retry count must be at least {0xFFF}")
        return retries
    if element.tag != "vendor_id":
        return True
    vendor_id = element.get("value")
    if vendor_id is None:
        raise document.error(element, "missing 'value' attribute for HyperV feature 'vendor_id'")
    if len(vendor_id.encode()) > 12:
        raise document.error(element, "HyperV vendor_id value must not be more than 12 characters")
    if "," in vendor_id:
        raise document.error(element, "HyperV vendor_id value is invalid: it contains a comma")
    return str(vendor_id)


def _panic(document: Document, panics: list[Any]) -> Iterator[Property]:
    models = [
        document.choice(panic, "model", ("isa", "pseries", "hyperv", "s390", "pvpanic"))
        for panic in panics
    ]
    if models.count("hyperv") > 1:
        raise document.error(panics[-1], "multiple panic devices with model 'hyperv'")
    if "hyperv" in models:
        yield _property("hv-crash", True, "panic hyperv")


def _kvm(document: Document, kvm: Any) -> Iterator[Property]:
    states: dict[str, bool | None] = {}
    for element in () if kvm is None else kvm.iterchildren("*"):
        if element.tag not in KVM_FEATURES:
            raise document.error(element, f"unsupported KVM feature: {element.tag}")
        states[element.tag] = document.switch(element, "state", required=True)
    for tag, feature in KVM_FEATURES.items():
        if feature is not None and states.get(tag) is feature[1]:
            yield _property(feature[0], feature[2], f"kvm {tag}")


def _pmu(document: Document, element: Any) -> Iterator[Property]:
    if element is not None:
        yield _property("pmu", document.switch(element, "state") is not False, "pmu")
