"""From labels to what they lead to, as far as their user may see it."""

from __future__ import annotations

import os
import re

from modelbuild.errors import LoadError, Location
from modelbuild.label import Label
from modelbuild.loading.declaration import crossing_error
from modelbuild.loading.loaded_packages import LoadedPackages
from modelbuild.loading.package import Package, Target
from modelbuild.loading.source_file import place_in_call, source_line
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.loading.visibility import PackageGroup, Visibility, is_visible

PASS_ON_TESTONLY = frozenset({"alias", "test_suite"})
"""Rules that may name what is `testonly` without being it; of an alias, who uses it is asked, as in Bazel."""


class LabelResolver:
    """Finds targets and source files, and checks who uses them. sources: label -> absolute path, so far.

    for_query: what is asked about need not be buildable: sources may be missing, nothing is invisible.
    """

    def __init__(self, packages: LoadedPackages, *, for_query: bool) -> None:
        self._packages = packages
        self._for_query = for_query
        self.sources: dict[Label, str] = {}

    def named(self, label: Label) -> Label:
        """A label that a person typed; it may name a target, an output or a source file."""
        self.resolve(label, None)
        return label

    def known_file(self, package: Package, name: str) -> bool:
        """Whether a file of the package is there, or made; one that is there is a source from now on."""
        label = Label(package.repository, package.name, name)
        if name in package.generated:
            return True
        path = os.path.join(package.root, label.path)
        if not os.path.exists(path):
            return False
        self.sources[label] = path
        return True

    def resolve(self, label: Label, user: Target | None) -> Target | None:
        """The target that `label` leads to, or None for a source file. Raises LoadError.

        user: the target that refers to it, or None when a person does.
        """
        package = self._packages.get((label.repository, label.package))
        if package is None:
            raise self.at(user, label, self._packages.missing(label.repository, label.package))
        target = self._packages.target(label)
        if target is not None:
            if user is not None:
                self._check_use(user, target, label)
            return target
        if label in self.sources and user is not None and _same_package(user.label, label):
            return None
        if "/" in label.name:
            crossed = self._packages.crosses(label.repository, label.package, label.name)
            if crossed is not None:
                raise self.at(user, label, crossing_error(label, crossed))
        path = os.path.join(package.root, label.path)
        declared = label.name in package.exported or label.name in package.implicit
        if not declared or not (self._for_query or os.path.exists(path)):
            raise self.at(user, label, self._no_such_target(label, package, path))
        if user is not None and not self._for_query:
            visibility = package.exported.get(label.name, package.default_visibility)
            self._check_visible(user, label, visibility, None)
        self.sources[label] = path
        return None

    def _no_such_target(self, label: Label, package: Package, path: str) -> LoadError:
        message = f"there is no target `{label}`"
        notes: tuple[str, ...] = (f"package `{package}` is declared in {package.path}",)
        if os.path.lexists(path) and not os.path.exists(path):
            return LoadError(message, notes=("a symlink of that name leads nowhere",))
        if os.path.exists(path):
            return LoadError(
                message,
                notes=("a file of that name is there, but no target of its package names it",),
                hint=f'`exports_files(["{label.name}"])` in {package.path} makes it known',
            )
        known = [*package.targets, *package.generated, *package.exported]
        directory = os.path.dirname(path)
        if os.path.isdir(directory):
            prefix = label.name.rpartition("/")[0]
            known += [f"{prefix}/{n}" if prefix else n for n in sorted(os.listdir(directory))[:1000]]
        hint = did_you_mean(label.name, known, ":")
        return LoadError(message, notes=notes, hint=hint)

    def _check_use(self, user: Target, target: Target, label: Label) -> None:
        if self._for_query:
            return
        # As in Bazel: any `select` may ask for a constraint value.
        is_asked_for = target.rule == "constraint_value" and label in user.conditions
        if not is_asked_for and not _same_package(user.label, target.label):
            self._check_visible(user, label, target.visibility, target)
        if target.rule != "alias" and target.testonly and user.rule not in PASS_ON_TESTONLY:
            self.check_testonly(user, target, label)

    def check_testonly(self, user: Target, target: Target, label: Label) -> None:
        """Raise LoadError when `user`, who refers to `label`, is more public than what that leads to."""
        if target.testonly and not user.testonly:
            raise self.at(
                user,
                label,
                LoadError(
                    f"`{user.label}` cannot depend on `{target.label}`, which is `testonly`",
                    notes=(f"`{target.label}` is declared at {target.place}",),
                ),
            )

    def _check_visible(
        self, user: Target, label: Label, visibility: Visibility, target: Target | None
    ) -> None:
        if _same_package(user.label, label) or is_visible(visibility, label, user.label, self.group):
            return
        shown = ", ".join(f"`{_short(entry)}`" for entry in visibility) or "nobody"
        place = (f"`{label}` is declared at {target.place}",) if target else ()
        error = LoadError(
            f"`{label}` is not visible from `{user.label}`",
            notes=(*place, f"its visibility is {shown}"),
            hint=None if target else f'`exports_files(["{label.name}"])` in its package makes it visible',
        )
        if target is not None:
            error.hint = f"add `//{user.label.package}:__pkg__` to the `visibility` of `{target.label}`"
        raise self.at(user, label, error)

    def group(self, label: Label) -> PackageGroup | None:
        """A package_group. Raises LoadError when there is none."""
        self._packages.ensure([(label.repository, label.package)])
        package = self._packages.get((label.repository, label.package))
        if (broken := self._packages.broken((label.repository, label.package))) is not None:
            raise broken
        group = package.groups.get(label.name) if package else None
        if group is None:
            hint = (
                f"did you mean `//visibility:{label.name}`?" if label.name in {"public", "private"} else None
            )
            raise LoadError(f"there is no package_group `{label}`", hint=hint)
        return group

    def at(self, user: Target | None, label: Label, error: LoadError) -> LoadError:
        """`error`, placed where `user` refers to `label`."""
        if user is None or error.location is not None:
            return error
        error.location = self._reference(user, label)
        error.source_line = source_line(user.root, error.location)
        if error.location != user.location:
            error.notes = (f"needed by `{user.label}`, declared at {user.place}", *error.notes)
        elif user.chain:
            error.notes = (f"needed by `{user.label}`, in macro `{user.chain[0].function}`", *error.notes)
        else:
            error.notes = (f"needed by `{user.label}`", *error.notes)
        return error

    def _reference(self, user: Target, label: Label) -> Location:
        repository = f"(@{re.escape(label.repository)})?" if label.repository else ""
        forms = [f"//{label.package}:{label.name}"]
        if _same_package(user.label, label):
            forms += [f":{label.name}", label.name]
        if label.package.rpartition("/")[2] == label.name:
            forms.append(f"//{label.package}")
        quoted = "|".join(re.escape(form) for form in forms)
        return place_in_call(user.root, user.location, rf"(?<=[\"']){repository}({quoted})(?=[\"'])")


def _same_package(a: Label, b: Label) -> bool:
    return a.package == b.package and a.repository == b.repository


def _short(label: Label) -> str:
    """A visibility label as people write it."""
    if label.package == "visibility":
        return f"//visibility:{label.name}"
    return str(label)
