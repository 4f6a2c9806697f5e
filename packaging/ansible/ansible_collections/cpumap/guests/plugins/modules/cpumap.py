#!/usr/bin/python
"""Ansible's module `cpumap`: calls `cpumap convert` on the host."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: cpumap
short_description: Makes the CPUs of libvirt's guests explicit
description:
  - Rewrites domain XML, in files or in libvirt, so that each CPU names every property.
  - Running it again changes nothing. Check mode writes nothing; diff mode shows what changes.
requirements: [cpumap on the host]
author: [the cpumap developers]
options:
  path:
    description: Files with domain XML, or directories of them. Exclusive with O(connect).
    type: list
    elements: path
  connect:
    description: The libvirt whose domains are converted, as C(qemu:///system).
    type: str
  domains:
    description: With O(connect), the names of the domains; all of them where there are none.
    type: list
    elements: str
    default: []
  backup_dir:
    description: Where the old definitions are kept. Needed, except in check mode.
    type: path
  pin:
    description: How a CPU is pinned.
    type: str
    choices: [model, custom, none]
    default: model
  recorded:
    description: With O(path), the release of QEMU whose recorded answers are taken.
    type: str
  extra_options:
    description: More options of C(cpumap convert).
    type: list
    elements: str
    default: []
  executable:
    description: The program.
    type: path
    default: cpumap
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
"""

EXAMPLES = r"""
- name: Stored guests name their CPUs
  cpumap.guests.cpumap:
    path: /srv/vms
    backup_dir: /srv/vms.old

- name: The domains of this host name their CPUs
  cpumap.guests.cpumap:
    connect: qemu:///system
    backup_dir: /var/backups/domains
"""

RETURN = r"""
guests:
  description: Each document or domain, with its C(status) and, where there is one, its C(reason).
  returned: always
  type: list
  elements: dict
notes:
  description: What cpumap says beside its answer, line by line.
  returned: always
  type: list
  elements: str
"""

OPTIONS = {
    "path": {"type": "list", "elements": "path"},
    "connect": {"type": "str"},
    "domains": {"type": "list", "elements": "str", "default": []},
    "backup_dir": {"type": "path"},
    "pin": {"type": "str", "choices": ["model", "custom", "none"], "default": "model"},
    "recorded": {"type": "str"},
    "extra_options": {"type": "list", "elements": "str", "default": []},
    "executable": {"type": "path", "default": "cpumap"},
}


def command(options: dict) -> list:
    """`cpumap convert` with what the task asks for, but whether to write."""
    words = [options["executable"], "convert", "--pin", options["pin"]]
    if options["recorded"]:
        words += ["--recorded", options["recorded"]]
    words += options["extra_options"]
    if options["connect"]:
        words += ["--connect", options["connect"]]
        return words + (["--", *options["domains"]] if options["domains"] else ["--all"])
    return [*words, "--", *options["path"]]


def writing(module: AnsibleModule) -> list:
    """How `cpumap convert` is told to write, or not to."""
    options = module.params
    if module.check_mode:
        return ["--dry-run"]
    if not options["backup_dir"]:
        module.fail_json(msg="backup_dir is needed, except in check mode")
    place = [] if options["connect"] else ["--in-place"]
    return [*place, "--backup-dir", options["backup_dir"]]


def with_options(words: list, more: list) -> list:
    """The command with more options, before the names that end it."""
    place = words.index("convert") + 1
    return words[:place] + more + words[place:]


def main() -> None:
    """Answers one task."""
    module = AnsibleModule(
        OPTIONS,
        supports_check_mode=True,
        required_one_of=[["path", "connect"]],
        mutually_exclusive=[["path", "connect"], ["connect", "recorded"]],
    )
    words = command(module.params)
    how = writing(module)
    result = {}
    if module._diff:
        _, shown, _ = module.run_command(with_options(words, ["--dry-run", "--diff"]))
        result["diff"] = {"prepared": shown}
    code, answer, said = module.run_command(with_options(words, [*how, "--format", "json"]))
    notes = said.splitlines()
    try:
        told = json.loads(answer)
        guests = told.get("files", told.get("domains"))
    except ValueError:
        module.fail_json(msg=notes[0] if notes else "cpumap gave no answer", rc=code, notes=notes)
    result.update(guests=guests, notes=notes)
    result["changed"] = any(guest["status"] == "converted" for guest in guests)
    if code:
        reasons = [guest.get("reason") for guest in guests if guest.get("reason")]
        module.fail_json(msg="; ".join(reasons) or "\n".join(notes), rc=code, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
