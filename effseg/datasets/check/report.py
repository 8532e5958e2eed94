"""What the check found, as a table for people and as JSON for programs."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ...errors import DataError
from .findings import ERROR, WARNING, Finding
from .survey import Survey


def table(surveys: list[Survey], findings: list[Finding]) -> str:
    """A report to read: kinds of findings with an example each, then what the label values become."""
    lines = []
    for found in surveys:
        bad = Counter(finding.severity for finding in found.findings)
        lines.append(f'{found.split}: {found.pairs} pairs, {bad[ERROR]} errors, {bad[WARNING]} warnings')
    by_kind: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault((finding.severity, finding.kind, finding.remedy), []).append(finding)
    for (severity, kind, remedy), same in sorted(by_kind.items()):
        lines += ['', f'{severity}: {kind} ({len(same)})']
        lines += [f'  {finding.path}: {finding.message}' for finding in same[:3]]
        lines += [f'  ... and {len(same) - 3} more, in the JSON report'] * (len(same) > 3)
        lines += [f'  what to do: {remedy}']
    for found in surveys:
        lines += ['', f'{found.split}: what the values of the label maps become']
        lines += [f'{"value":>6}  {"becomes":24} {"pixels":>8}  {"label maps":>10}']
        lines += [
            f'{row["raw"]:>6}  {row["becomes"][:24]:24} {row["share"]:>8.2%}  {row["label_maps"]:>10}'
            + ('' if row['pixels'] else '  never seen')
            for row in found.values
        ]
    return '\n'.join(lines)


def write_json(path: str, surveys: list[Survey], findings: list[Finding]) -> None:
    """Writes the findings as JSON: ``{'ok', 'splits': [{'split', 'pairs', 'values'}], 'findings': [...]}``.

    Raises:
        DataError: when it cannot be written.
    """
    content = dict(
        ok=not any(finding.severity == ERROR for finding in findings),
        splits=[dict(split=found.split, pairs=found.pairs, values=found.values) for found in surveys],
        findings=[asdict(finding) for finding in findings],
    )
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise DataError(f'{path} cannot be written: {error.strerror}') from error
