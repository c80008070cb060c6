"""KeptErrors: the errors that loading and analysis go on after, and the one error that stands for many."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.errors import Location, ModelbuildError


class KeptErrors:
    """The errors of one phase, each once. keep_going: whether it goes on after them."""

    def __init__(self, *, keep_going: bool = False) -> None:
        self.keep_going = keep_going
        self._errors: list[ModelbuildError] = []
        self._places: dict[str, set[Location | None]] = {}

    def keep(self, error: ModelbuildError) -> None:
        """Go on after an error; raises it when there is to be no going on."""
        if not self.keep_going:
            raise error from None
        places = self._places.setdefault(error.message, set())
        if not places or error.location not in {None, *places}:
            self._errors.append(error)
        places.add(error.location)

    def keep_all(self, errors: Sequence[ModelbuildError]) -> None:
        """Go on after errors that were found together; raises them as one when there is to be no going on."""
        if errors and not self.keep_going:
            raise combined(errors)
        for error in errors:
            self.keep(error)

    @property
    def errors(self) -> tuple[ModelbuildError, ...]:
        """All, in the order they came."""
        return tuple(self._errors)

    def combined(self) -> ModelbuildError:
        """The first, with the others as notes; for when nothing is left to go on with."""
        return combined(self._errors)


def combined(errors: Sequence[ModelbuildError], *, complete: bool = True) -> ModelbuildError:
    """The first error, with the others as notes. complete: whether these are all that there are."""
    first = errors[0]
    if len(errors) > 1:
        shown = [f"also at {e.location}: {e.message}" for e in errors[1:6]]
        if len(errors) > 6:
            shown.append(f"and {'' if complete else 'at least '}{len(errors) - 6} more errors")
        first.notes = (*first.notes, *shown)
    return first
