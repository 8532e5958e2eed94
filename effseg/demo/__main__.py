from ..apis import cli
from .dataset import main

if __name__ == '__main__':
    cli.run(main, needs_stack=False)
