"""What the README and the pages of docs/ tell a reader to type."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f'{name}.md' for name in ('README', 'CONTRIBUTING', 'SECURITY')),
    *sorted((ROOT / 'docs').glob('*.md')),
]
PROGRAMS = 'python|python3|pytest|pip|make|torchrun|npm|npx|hf|effseg|cd|export'


@dataclass(frozen=True)
class Command:
    """One line for a shell, without its comment.

    Attributes:
        page: where it was first seen.
        text: as it stands there; of ``[--a | --b]`` one or none is meant.
    """

    page: Path
    text: str


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf'```{language}\n(.*?)```', page.read_text(), flags=re.S)


def commands(page: Path) -> list[Command]:
    """Those of its shell blocks, and those between backticks in its text, in order."""
    lines = [line for block in blocks(page, 'sh') for line in block.replace('\\\n', ' ').splitlines()]
    lines += re.findall(r'#.*\b(make [\w-]+)', '\n'.join(lines))
    prose = re.sub(r'```.*?```', '', page.read_text(), flags=re.S)
    lines += [
        ' '.join(span.split())
        for span in re.findall(r'`([^`]+)`', prose)
        if re.match(rf'(\w+=\S+ )*({PROGRAMS}) ', span)
    ]
    stripped = (re.sub(r'\s+#\s.*', '', line).strip() for line in lines)
    return [Command(page, line) for line in dict.fromkeys(stripped) if line]
