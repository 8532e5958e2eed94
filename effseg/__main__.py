"""``effseg TOOL ...``: the tools of the repository, for those who installed only the package."""

import runpy
import sys

from .stack import resources


def main() -> None:
    """Runs ``tools/TOOL.py`` with the remaining arguments."""
    tools = {path.stem: path for path in sorted((resources() / 'tools').glob('*.py'))}
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in tools:
        print(f'usage: effseg {{{",".join(tools)}}} ...', file=sys.stderr)
        sys.exit(0 if name in ('-h', '--help') else 2)
    sys.argv = [f'effseg {name}', *sys.argv[2:]]
    runpy.run_path(str(tools[name]), run_name='__main__')


if __name__ == '__main__':
    main()
