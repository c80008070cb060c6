"""The closure: all targets that requested ones need, whatever the branches of their selects are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelbuild.errors import LoadError
from modelbuild.kept_errors import combined
from modelbuild.label import Label
from modelbuild.loading.label_resolver import PASS_ON_TESTONLY, LabelResolver
from modelbuild.loading.loaded_packages import LoadedPackages
from modelbuild.loading.package import BranchErrors, Target, dependency_cycle
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.visibility import group_labels

MANY_ERRORS = 100
"""More errors than these say nothing more to someone who wants none."""


@dataclass(frozen=True, slots=True)
class Closure:
    """order: what can be built, dependencies first; branches of selects may lead back."""

    order: tuple[Target, ...]
    branch_errors: BranchErrors


def find_closure(
    roots: Iterable[Target],
    packages: LoadedPackages,
    resolver: LabelResolver,
    *,
    toolchains: Collection[Label] = (),
    for_query: bool = False,
) -> Closure:
    """Load what `roots` need. Raises LoadError, also for a cycle; or keeps it, and leaves out its users.

    toolchains: the registered ones; what asks for toolchains needs them. for_query: all branches are taken.
    """
    walk = _Walk(packages, resolver, toolchains, for_query=for_query)
    walk.follow({target.label: target for target in roots}.values())
    walk.follow_branches()
    return walk.closure()


class _Unbuildable(Exception):
    """Targets that cannot be built, and why."""

    def __init__(self, targets: Sequence[Target], error: LoadError) -> None:
        super().__init__(error)
        self.labels = {target.label for target in targets}
        self.error = error


class _Walk:
    """One call of find_closure."""

    def __init__(
        self,
        packages: LoadedPackages,
        resolver: LabelResolver,
        toolchains: Collection[Label],
        *,
        for_query: bool,
    ) -> None:
        self._packages = packages
        self._resolver = resolver
        self._toolchains = toolchains
        self._for_query = for_query
        self._targets: dict[Label, Target] = {}
        self._edges: dict[Label, list[Target]] = {}
        self._branches: list[tuple[Target, Label, Target]] = []
        self._required: frozenset[Label] = frozenset()
        """Targets that are needed whatever branch is taken."""
        self._errors: dict[Label, LoadError] = {}
        self._branch_errors: dict[tuple[Label, Label], LoadError] = {}

    def follow(self, targets: Iterable[Target], *, optional: bool = False) -> None:
        """Add targets and all that they need in any case, level by level. optional: errors are not told."""
        level = list(targets)
        while level:
            self._ensure((label for target in level for label in self._needed(target)), lenient=optional)
            groups = (label for target in level for label in group_labels(target.visibility))
            self._ensure(groups, lenient=optional)
            following: dict[Label, Target] = {}
            errors: list[LoadError] = []
            for target in level:
                self._targets[target.label] = target
                needed = self._edges[target.label] = []
                before = len(errors)
                for found in self._found(target):
                    if isinstance(found, LoadError):
                        errors.append(found)
                        # To look for the place and a hint of each takes time.
                        if len(errors) >= MANY_ERRORS and not self._packages.kept.keep_going and not optional:
                            raise combined(errors, complete=False)
                        continue
                    needed.append(found)
                    following[found.label] = found
                if len(errors) > before:
                    self._errors[target.label] = errors[before]
            if not optional:
                self._packages.kept.keep_all(errors)
            level = [target for label, target in following.items() if label not in self._edges]
        if not optional:
            self._required = frozenset(self._targets)

    def follow_branches(self) -> None:
        """Add what only some branches lead to."""
        users = [target for target in self._targets.values() if self._conditional(target)]
        while users:
            self._ensure((label for user in users for label in self._conditional(user)), lenient=True)
            found: dict[Label, Target] = {}
            for user in users:
                for label in self._conditional(user):
                    try:
                        other = self._resolver.resolve(label, user)
                    except LoadError as error:
                        self._branch_errors[user.label, label] = error
                        continue
                    if other is not None:
                        self._branches.append((user, label, other))
                        if other.label not in self._edges:
                            found[other.label] = other
            before = set(self._targets)
            self.follow(found.values(), optional=True)
            users = [t for t in self._targets.values() if t.label not in before and self._conditional(t)]

    def closure(self) -> Closure:
        """What was found, without what has errors and what needs that."""
        while True:
            without = _with_users(self._errors, self._edges)
            try:
                order = _sorted([t for t in self._targets.values() if t.label not in without], self._edges)
                if not self._for_query:
                    self._check_behind_aliases(order)
            except _Unbuildable as found:
                if not self._required.isdisjoint(found.labels):
                    self._packages.kept.keep(found.error)
                self._errors |= dict.fromkeys(found.labels, found.error)
                continue
            for user, label, other in self._branches:
                if other.label in without:
                    self._branch_errors[user.label, label] = without[other.label]
            return Closure(tuple(order), self._branch_errors)

    def _ensure(self, labels: Iterable[Label], *, lenient: bool) -> None:
        self._packages.ensure(((label.repository, label.package) for label in labels), lenient=lenient)

    def _conditional(self, target: Target) -> tuple[Label, ...]:
        return () if self._for_query else target.conditional

    def _needed(self, target: Target) -> tuple[Label, ...]:
        """The labels that the target needs in any case."""
        asked = (*target.toolchain_types, *self._toolchains) if target.toolchain_types else ()
        always = target.dependencies
        if conditional := self._conditional(target):
            always = tuple(label for label in always if label not in conditional)
        return (*always, *target.conditions, *asked)

    def _found(self, target: Target) -> Iterator[Target | LoadError]:
        """The targets that it needs in any case, or what is wrong with them; files are left out."""
        for label in group_labels(target.visibility):
            try:
                self._resolver.group(label)
            except LoadError as error:
                error.located(target.location, target.source_line())
                yield error
        for label in self._needed(target):
            try:
                # As in Bazel: who may use a toolchain is not a matter of visibility.
                other = self._resolver.resolve(label, None if label in self._toolchains else target)
            except LoadError as error:
                if label in target.toolchain_types and self._packages.target(label) is None:
                    error.notes = (*error.notes, f"`{target.rule}` takes toolchains of this type")
                    error.hint = _toolchain_type_hint(label)
                yield error
                continue
            if other is not None:
                yield other

    def _check_behind_aliases(self, order: Sequence[Target]) -> None:
        """Raise _Unbuildable for a user of an alias that leads to something `testonly`."""
        actual: dict[Label, list[Target]] = {}
        for user, _, other in self._branches:
            actual.setdefault(user.label, []).append(other)
        for target in order:
            if target.rule == "alias" or target.rule in PASS_ON_TESTONLY:
                continue
            for alias in (*self._edges[target.label], *actual.get(target.label, ())):
                seen: set[Label] = set()
                waiting = [alias] if alias.rule == "alias" else []
                while waiting:
                    each = waiting.pop()
                    seen.add(each.label)
                    for other in (*self._edges[each.label], *actual.get(each.label, ())):
                        if other.rule == "alias":
                            waiting += [other] if other.label not in seen else []
                        elif other.testonly:
                            self._refuse_testonly(target, other, alias.label)

    def _refuse_testonly(self, user: Target, target: Target, label: Label) -> None:
        try:
            self._resolver.check_testonly(user, target, label)
        except LoadError as error:
            raise _Unbuildable([user], error) from None


def _toolchain_type_hint(label: Label) -> str:
    declaration = f'toolchain_type(name = "{label.name}", visibility = ["//visibility:public"])'
    return f"a workspace declares its toolchain types: `{declaration}` in `{label.package}/{BUILD_FILE}`"


def _with_users(
    errors: Mapping[Label, LoadError], edges: Mapping[Label, Sequence[Target]]
) -> dict[Label, LoadError]:
    """The targets with errors, and all that need one of them, with the error that they meet."""
    if not errors:
        return {}
    users: dict[Label, list[Label]] = {}
    for label, needed in edges.items():
        for other in needed:
            users.setdefault(other.label, []).append(label)
    found, waiting = dict(errors), list(errors)
    while waiting:
        label = waiting.pop()
        fresh = [user for user in users.get(label, ()) if user not in found]
        found |= dict.fromkeys(fresh, found[label])
        waiting += fresh
    return found


def _sorted(targets: Sequence[Target], edges: Mapping[Label, Sequence[Target]]) -> list[Target]:
    """Depth first, dependencies before their users. Raises _Unbuildable for a cycle."""
    order: list[Target] = []
    done: set[Label] = set()
    active: dict[Label, Target] = {}
    for root in targets:
        if root.label in done:
            continue
        stack = [(root, iter(edges[root.label]))]
        active[root.label] = root
        while stack:
            target, rest = stack[-1]
            for other in rest:
                if other.label in done:
                    continue
                if other.label in active:
                    path = [entry for entry, _ in stack]
                    cycle = path[next(i for i, t in enumerate(path) if t is other) :]
                    raise _Unbuildable(cycle, dependency_cycle(cycle))
                active[other.label] = other
                stack.append((other, iter(edges[other.label])))
                break
            else:
                stack.pop()
                del active[target.label]
                done.add(target.label)
                order.append(target)
    return order
