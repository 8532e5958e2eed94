"""What all tools share: their options, and that a user's mistake is one line and status 2, never a traceback."""

import argparse
import errno
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable

from .. import stack
from ..errors import EffsegError, first_line

# what a system says of files that a user named, or of the room for them
OF_FILES = {errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG}
OF_FILES |= {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ELOOP, errno.EIO}


def run(tool: Callable[[list[str]], None], needs_stack: bool = True) -> None:
    """Runs ``tool`` on the command line's arguments.

    An :class:`~effseg.errors.EffsegError` is printed as ``error: ...`` on stderr and ends the process with status 2;
    with ``--debug`` among the arguments, behind its traceback. So is what the system says of a file: a full disk, a
    folder that may not be written; and a GPU whose memory is full. Ctrl-C ends it with status 130, a pipe that nobody
    reads any more (``| head``) with 141 and no word. Everything else is a defect and keeps its traceback.

    Args:
        tool: takes the arguments; imports what it needs itself, so that a missing package is reported here.
        needs_stack: whether it takes MMSegmentation.
    """
    debug = '--debug' in sys.argv
    logging.raiseExceptions = debug  # or a full disk is a traceback for every line of the log
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors='backslashreplace')  # names that the terminal has no letters for
        if needs_stack:
            stack.require()
        try:
            tool([argument for argument in sys.argv[1:] if argument != '--debug'])
        finally:
            print(end='', flush=True)
    except BrokenPipeError:  # who reads what is printed, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except EffsegError as error:
        _end(str(error), debug)
    except OSError as error:
        if error.errno not in OF_FILES:
            raise
        _end(f'{error.filename or "a file"}: {error.strerror}', debug)
    except RuntimeError as error:
        if type(error).__name__ != 'OutOfMemoryError':  # torch's, which not every tool imports
            raise
        _end(f'{first_line(error)[:200]} ... a smaller batch, crop or image takes less', debug)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def _end(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f'error: {" ".join(message.split())}', file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """argparse's, whose complaint is one line like every other error."""

    def error(self, message: str):
        print(f'error: {message} (see {self.prog} --help)', file=sys.stderr)
        sys.exit(2)

    def refuse_others(self, args: argparse.Namespace, what: str, takes: str) -> None:
        """Ends where an option was given that would be left aside in silence.

        Args:
            args: parsed.
            what: the option that says what is done.
            takes: the names in ``args`` that it takes, separated by spaces.
        """
        others = [
            (one.option_strings or [one.dest.upper()])[-1]
            for one in self._actions
            if one.dest not in takes.split() and getattr(args, one.dest, one.default) != one.default
        ]
        if others:
            self.error(f'{what} does nothing with {", ".join(others)}: leave it out')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that every tool around a Runner has, under MMSegmentation's names."""
    parser.add_argument('--work-dir', help='for logs and checkpoints (default: work_dirs/NAME)')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how the processes were started'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """MMSegmentation's way to change a config from the command line."""
    add_pairs(parser, '--cfg-options', 'pairs merged over the config')


def add_pairs(parser: argparse._ActionsContainer, name: str, text: str) -> None:
    """An option of pairs, whose values are read as MMEngine reads them."""
    from mmengine.config import DictAction

    class Pairs(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            try:
                super().__call__(parser, namespace, values, option_string)
            except (AssertionError, RecursionError, ValueError):  # of brackets that do not pair, or follow a word
                parser.error(
                    f'{name} {" ".join(values)}: a value is a number, a text, (a,b) or [a,b]; others take a config of '
                    'your own with a _base_'
                )

    parser.add_argument(name, nargs='+', type=_pair, action=Pairs, metavar='KEY=VALUE', help=text)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Options for what becomes of labels when they are converted; see :func:`effseg.apis.convert.convert`."""
    parser.add_argument(
        '--classes',
        type=_mapping,
        default={},
        metavar='OLD=NEW,...',
        help='rename and merge classes; OLD= drops one, whose pixels are ignored',
    )
    parser.add_argument(
        '--background', action='store_true', help='pixels that nobody labelled are a class (default: they are ignored)'
    )
    parser.add_argument('--leave-out', action='store_true', help='leave out what cannot be used, and say so')
    parser.add_argument('--seed', type=int, default=0, help='for the split, where the folder has none')


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """For tools that read a checkpoint; they enter :func:`effseg.checkpoint.read.trusted` with it."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='run the code of a checkpoint that holds more than tensors and plain data; '
        'for files that you would start as a program',
    )


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """For tools that fuse; see :meth:`effseg.apis.opening.Segmenter.fused`."""
    parser.add_argument(
        '--precision',
        choices=['fp32', 'bf16'],
        default='fp32',
        help='of a fused network; bf16 is faster where the device has it, and changes a few labels',
    )


def add_unknown_option(parser: argparse.ArgumentParser) -> None:
    """For tools that show labels; see :class:`effseg.apis.opening.Segmenter`."""
    parser.add_argument(
        '--unknown-below',
        type=float,
        metavar='P',
        help='pixels whose class has a smaller probability, 0 to 1, are unknown; of a checkpoint, and of a file of '
        'labels+confidence or logits',
    )


def add_protect_option(parser: argparse.ArgumentParser) -> None:
    """For tools around a Runner, which see to it with :func:`effseg.engine.protect.protect`."""
    parser.add_argument(
        '--no-protect',
        action='store_true',
        help='run the config as it is; otherwise loaders, samplers, loops and hooks that our base configs name are put '
        'into one that does not',
    )


def _pair(text: str) -> str:
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'{text!r} is no key=value')
    return text


def _mapping(text: str) -> dict[str, str]:
    return dict(_pair(part).split('=', 1) for part in text.split(','))
