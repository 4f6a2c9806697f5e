"""Ubuntu's recording under RHEL's names: a QEMU that has no machine type of upstream's."""

from __future__ import annotations

import json
from pathlib import Path

from cpumap.cpu.names import Accel
from cpumap.sources.recordings import find_recording

RHEL_NAMES = {
    "pc-q35-noble": "pc-q35-rhel9.4.0",
    "pc-q35-jammy": "pc-q35-rhel9.2.0",
    "pc-i440fx-bionic": "pc-i440fx-rhel7.6.0",
}


def write_rhel(directory: Path, accel: Accel = "tcg") -> Path:
    """The recording's file, called as `cpumap record` calls it."""
    stored = json.loads(find_recording("ubuntu", accel).read_bytes())
    stored |= {"qemu": "9.1.0", "package": "qemu-kvm-9.1.0-15.el9"}
    del stored["offers"]
    stored["machines"] = {
        RHEL_NAMES[name]: {
            **{key: value for key, value in entry.items() if key not in ("alias", "is_default")},
            "table": RHEL_NAMES.get(entry["table"], entry["table"]),
        }
        for name, entry in stored["machines"].items()
        if name in RHEL_NAMES
    }
    stored["machines"]["pc-i440fx-rhel7.6.0"] |= {"alias": "pc", "is_default": True}
    for kind in ("full", "definition", "hidden", "realised"):
        tables = stored[kind]["tables"]
        stored[kind]["tables"] = {
            RHEL_NAMES.get(name, name): entry for name, entry in tables.items()
        }
    path = directory / f"9.1.0-rhel_x86_64_{accel}.json"
    path.write_text(json.dumps(stored))
    return path
