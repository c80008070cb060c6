"""`modelbuild size`: what models take on a device, told before anything is built."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelbuild.cli import units
from modelbuild.cli.command_line import add_platform_flags, add_workspace_flags
from modelbuild.cli.invocation import load_request, open_invocation
from modelbuild.cli.size_table import footprint_document, size_table
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from modelbuild.driver.request import BuildRequest
    from modelbuild.driver.sizes import FormatSize, TargetSize

SUMMARY = "Show what models take on disk and in memory"
USAGE = "[flags] TARGET..."


def configure(parser: ArgumentParser) -> None:
    """Target patterns; models and device binaries among them are shown."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="models, device binaries, a matrix")
    parser.add_argument(
        "--formats", action="store_true", help="every format of the platform's toolchains, with refusals"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """One paragraph for each target. Nothing is built, and a target that is too large is no error."""
    from modelbuild.driver.sizes import sizes  # noqa: PLC0415 - brings pydantic and Starlark

    invocation = open_invocation(args, terminal)
    request = load_request(args, invocation, [*args.targets, *args.rest])
    found = sizes(request)
    if not found:
        return _show_matrix(request, args, terminal)
    if args.toolchain_resolution_debug:
        for text in dict.fromkeys("\n".join(size.resolution.lines(takes_first=False)) for size in found):
            terminal.say(text)
    if args.json:
        document = {"schema": 1, "targets": [_document(size) for size in found]}
        terminal.write_json(document)
        return ExitCode.OK
    blocks = ["\n".join(_paragraph(size, terminal, every=args.formats)) for size in found]
    terminal.write("\n\n".join(blocks))
    return ExitCode.OK


def _show_matrix(request: BuildRequest, args: Namespace, terminal: Terminal) -> int:
    """The cells of an `artifact_matrix`, if that is what was named."""
    from modelbuild.cli.matrix_sizes import matrix_document, matrix_lines  # noqa: PLC0415
    from modelbuild.driver.matrix import plan_matrix  # noqa: PLC0415

    try:
        plan = plan_matrix(request, terminal.say)
    except UsageError:
        raise UsageError(
            f"no model or device binary matches {' '.join(f'`{each}`' for each in request.patterns)}",
            hint="`modelbuild query 'kind(device_binary, //...)'` lists device binaries",
        ) from None
    if args.formats:
        raise UsageError(
            f"`--formats` is for models and device binaries, and `{plan.label}` is a matrix",
            hint=f"name one of its artifacts, such as `{plan.cells[0].artifact}`" if plan.cells else None,
        )
    if args.json:
        terminal.write_json({"schema": 1, "targets": [], "matrices": [matrix_document(plan)]})
    else:
        terminal.write("\n".join(matrix_lines(plan, terminal)))
    return ExitCode.OK


def _paragraph(size: TargetSize, terminal: Terminal, *, every: bool) -> Iterator[str]:
    info, budget = size.info, size.platform.budget
    what = f"made of {size.model}" if size.is_binary else f"{info.dtype}, {info.format}"
    yield terminal.paint(f"{size.label}", "bold", terminal.out) + f" ({what})"
    kind = info.architecture["model_type"]
    cache = f"; KV cache {units.size(size.kv_cache)} in float16" if size.kv_cache else ""
    yield f"  {kind}, {size.parameters:,} parameters; checkpoint {units.size(size.checkpoint)}{cache}"
    room = [
        f"{units.size(value)} of {name}"
        for name, value in (("disk", budget.disk), ("memory", budget.ram))
        if value is not None
    ]
    if budget.context_length:
        room.append(f"a context of {budget.context_length:,} tokens")
    shown = _shown(size, every=every)
    of_their_own = not budget.context_length and any(
        each.footprint and each.footprint.kv_cache for each in shown
    )
    cache = "; KV caches as long as the model was made for" if of_their_own else ""
    yield f"  on {size.platform.label}: {', '.join(room) or 'no budget stated'}{cache}"
    if shown:
        yield ""
        yield from _table(shown, size.made, terminal)
    elif size.formats:
        yield "  no format can be had there; `--formats` says why"
    else:
        yield "  no toolchain is for this platform; `--toolchain-resolution-debug` says why"
    made = next((each for each in shown if each.format == size.made and each.footprint), None)
    if made and made.footprint and made.footprint.detail and size.is_binary:
        parts = ", ".join(f"{name} {units.size(count)}" for name, count in made.footprint.detail.items())
        yield f"  on disk: {parts}"


def _shown(size: TargetSize, *, every: bool) -> Sequence[FormatSize]:
    """The format of a binary, or those that a model can be had in; all with their reasons if asked."""
    if every:
        return size.formats
    if size.made:
        return [each for each in size.formats if each.format == size.made]
    return [each for each in size.formats if each.footprint]


def _table(formats: Sequence[FormatSize], made: str, terminal: Terminal) -> Iterator[str]:
    rows = []
    for each in formats:
        mark = " *" if each.format == made and len(formats) > 1 else ""
        fits = "; ".join(each.excess) or ("yes, but only by name" if each.only_by_name else "yes")
        told = fits if each.footprint else f"refused: {each.refusal}"
        rows.append(((each.format + mark,), each.footprint, told))
    yield from size_table(("format",), rows, terminal)


def _document(size: TargetSize) -> dict[str, Any]:
    info, budget = size.info, size.platform.budget
    return {
        "label": str(size.label),
        "model": str(size.model),
        "model_type": info.architecture["model_type"],
        "parameters": size.parameters,
        "checkpoint": {"format": info.format, "dtype": info.dtype, "bytes": size.checkpoint},
        "kv_cache_float16": size.kv_cache,
        "platform": {
            "label": str(size.platform.label),
            "disk": budget.disk,
            "ram": budget.ram,
            "context_length": budget.context_length,
        },
        "format": size.made or None,
        "formats": [_format_document(each) for each in size.formats],
    }


def _format_document(each: FormatSize) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": each.format,
        "runtime": each.runtime,
        "toolchain": str(each.toolchain),
        "fits": each.fits,
        "only_by_name": each.only_by_name,
        "refusal": each.refusal,
        "excess": list(each.excess),
    }
    if each.footprint is not None:
        document |= footprint_document(each.footprint)
    return document
