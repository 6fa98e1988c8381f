"""``lab trace diff A B``: two recorded traces side by side, aligned by step."""

from __future__ import annotations

from pathlib import Path

import typer

from lab.cli.output import Format, console, print_json
from lab.errors import InputError
from lab.report.diff import Row, diff, diff_html, differences, print_diff
from lab.report.svg import ways_svg
from lab.trace import Hop, Trace


def compare(left: str, right: str, *, html: Path | None, output: Format) -> None:
    """Print how two traces differ; exit code 1 if they do.

    Args:
        left: file that ``lab trace ... -o json`` wrote.
        right: another one.
        html: also write the picture there.
        output: table or JSON.

    Raises:
        InputError: a file cannot be read or is no trace.
    """
    names = (Path(left).stem, Path(right).stem)
    one, two = read_trace(left), read_trace(right)
    rows = differences(diff(one, two))
    if html is not None:
        page = ways_svg(one, two, names=names) + diff_html(one, two, names=names)
        try:
            html.write_text(f'<!DOCTYPE html><meta charset="utf-8">{page}\n', encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot write {html}: {error.strerror}", hint="choose another place"
            ) from None
    if output is Format.JSON:
        print_json([_as_dict(row) for row in rows])
    else:
        print_diff(one, two, console(), names=names)
    if rows:
        raise typer.Exit(1)


def read_trace(name: str) -> Trace:
    """Return the trace in a file.

    Raises:
        InputError: it cannot be read, or is no trace.
    """
    if not name:
        raise InputError("a trace to compare with is missing", hint="lab trace diff A.json B.json")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {name}: {error}", hint="give a file that `lab trace ... -o json` wrote"
        ) from None
    try:
        return Trace.from_json(text)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", hint=error.hint) from None


def _as_dict(row: Row) -> dict[str, object]:
    def side(hop: Hop | None) -> dict[str, object] | None:
        if hop is None:
            return None
        return {"hook": hop.hook, "evidence": hop.evidence.word, "verdict": hop.verdict,
                "drop_reason": hop.drop_reason, "reason": hop.reason}  # fmt: skip

    # a row has at least one side
    hop = row.left or row.right
    assert hop is not None
    return {
        "kind": row.kind.value,
        "node": hop.node,
        "namespace": hop.namespace,
        "device": hop.device,
        "step": hop.step.number if hop.step else None,
        "last_step": row.last or None,
        "differs": list(row.fields),
        "left": side(row.left),
        "right": side(row.right),
    }
