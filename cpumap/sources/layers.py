"""Facts about every (model, machine type table), stored as differences that a person can read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cpumap.cpu.names import model_version

Facts = dict[str, Any]


ByModel = dict[str, Facts]


class Layer:
    """One kind of fact about every (model, machine type table), stored as differences.

    A model is described as its difference from the model it is `like` (its alias target, the
    version before it, at last `base`), and a table by what it changes for all models and for single
    ones. JSON null takes a fact away.
    """

    def __init__(self, stored: Mapping[str, Any], like: Mapping[str, str | None]) -> None:
        self.stored = stored
        self.like = like

    def facts(self, model: str, table: str) -> dict[str, Any]:
        return {
            name: value for name, value in self._layered(model, table).items() if value is not None
        }

    def fact(self, model: str, table: str, name: str) -> Any:
        """One of the facts, without putting the others together; None where there is no such
        fact.
        """
        changes = self.stored["tables"].get(table, {})
        changed, own = (
            changes.get("models", {}).get(model, {}),
            self.stored["models"].get(model, {}),
        )
        like = self.like[model]
        if name in changed:
            return changed[name]
        if like is None:
            return changes.get("all", {}).get(name, own.get(name))
        return own[name] if name in own else self.fact(like, table, name)

    def depth(self, model: str) -> int:
        """How many models stand between this one and its root."""
        like = self.like[model]
        return 0 if like is None else 1 + self.depth(like)

    def _layered(self, model: str, table: str) -> dict[str, Any]:
        like = self.like[model]
        changes = self.stored["tables"].get(table, {})
        return {
            **(self._layered(like, table) if like is not None else {}),
            **self.stored["models"].get(model, {}),
            **changes.get("all", {}),
            **changes.get("models", {}).get(model, {}),
        }


def likes(definition: ByModel, bare: str = "base") -> dict[str, str | None]:
    """Model → the model it is described as a difference from: its alias target, the version
    before it, or the bare one.
    """
    found: dict[str, str | None] = {}
    for name, facts in definition.items():
        stem, version = model_version(name)
        before = "" if version is None else f"{stem}-v{version - 1}"
        target = facts.get("alias_of") or (before if before in definition else bare)
        found[name] = target if target in definition and name != bare else None
    return found


def factorise(answers: Mapping[str, ByModel], stored: Facts) -> Facts:
    """Facts by machine type table and model, as a `Layer` stores them; the first table is what
    others change.
    """
    newest, *rest = answers
    first = answers[newest]
    models = {
        name: change
        for name, facts in first.items()
        if (change := difference(first.get(stored["like"][name] or "", {}), facts))
    }
    facts: Facts = {"models": models, "tables": {}}
    layer = Layer(facts, stored["like"])
    facts["tables"] = {
        table: change for table in rest if (change := _table_changes(layer, answers[table]))
    }
    return facts


def _table_changes(layer: Layer, answers: ByModel) -> Facts:
    """What one table changes: for all models where that is true of more than it is not, by model
    for the rest.
    """
    changes = {model: difference(layer.facts(model, ""), facts) for model, facts in answers.items()}
    kinds = Counter(
        (name, json.dumps(value)) for change in changes.values() for name, value in change.items()
    )
    common: Facts = {}
    for (name, text), count in kinds.most_common():
        value = json.loads(text)
        exceptions = sum(not same(facts.get(name), value) for facts in answers.values())
        if name not in common and count > exceptions:
            common[name] = value
    proposed: Facts = {"all": common, "models": {}}
    trial = Layer({"models": layer.stored["models"], "tables": {"": proposed}}, layer.like)
    for model in sorted(answers, key=trial.depth):
        if change := difference(trial.facts(model, ""), answers[model]):
            proposed["models"][model] = change
    return {name: value for name, value in proposed.items() if value}


def difference(before: Facts, after: Facts) -> Facts:
    """What must be put over `before` to get `after`; None takes a fact away."""
    gone = dict.fromkeys(sorted(before.keys() - after.keys()))
    return {
        **gone,
        **{name: value for name, value in after.items() if not same(before.get(name), value)},
    }


def same(a: object, b: object) -> bool:
    return a == b and type(a) is type(b)


def present(facts: Facts) -> Facts:
    return {name: value for name, value in facts.items() if value is not None}
