import pytest

from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.request import ToolError


@pytest.mark.parametrize("kinds", [(Exception,), (ValueError,), (KeyError, ValueError)])
def test_the_first_line_of_the_cause_is_told(kinds: tuple[type[Exception], ...]) -> None:
    with (
        pytest.raises(ToolError, match=r"^it refuses the file: bad magic$") as raised,
        foreign_errors("it refuses the file", *kinds),
    ):
        raise ValueError("\nbad magic\nat byte 7")
    assert isinstance(raised.value.__cause__, ValueError)


def test_other_kinds_pass() -> None:
    with pytest.raises(KeyError), foreign_errors("it refuses the file", ValueError):
        raise KeyError("x")
