"""Which targets depend on the platform: all others are configured and built once for every device."""

from __future__ import annotations

from modelbuild.label import Label
from modelbuild.loading.dependencies import dependencies_of
from modelbuild.loading.package import Target, TargetGraph


def platform_sensitive(targets: TargetGraph) -> frozenset[Label]:
    """Targets that mean something else on another platform, by themselves or by what they depend on."""
    found: set[Label] = set()
    for label in targets.order:
        target = targets.targets[label]
        if has_own_platform(target):
            continue  # It is built for the platform it names, whoever asks for it.
        if target.needs_platform or any(_owner(targets, each) in found for each in _inherited(target)):
            found.add(label)
    return frozenset(found)


def has_own_platform(target: Target) -> bool:
    """Whether an attribute of the target says which platform it is built for."""
    attribute = target.rule_class.platform_attribute
    return bool(attribute and target.attributes.get(attribute))


def _inherited(target: Target) -> tuple[Label, ...]:
    """Dependencies that are built for the same platform as the target."""
    apart = target.rule_class.exec_attributes
    if not apart or target.instance is None:
        return target.dependencies
    return tuple(
        label
        for attribute, labels in dependencies_of(target.instance).items()
        if attribute not in apart
        for label in labels
    )


def _owner(targets: TargetGraph, label: Label) -> Label:
    return targets.generated.get(label, label)
