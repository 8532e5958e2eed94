"""What all tools share, whatever reads what they print."""

import io
import os
import sys

import pytest

from effseg.apis import cli


def test_a_pipe_that_nobody_reads_any_more_ends_a_tool_without_a_word(monkeypatch, capfd):
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, 'w') as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        with pytest.raises(SystemExit) as end:
            cli.run(lambda argv: print('of a table'), needs_stack=False)
    assert end.value.code == 141 and not capfd.readouterr().err


def test_names_that_a_terminal_cannot_show_are_written_out(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    monkeypatch.setattr(sys, 'stdout', stream)
    cli.run(lambda argv: print('caf\udce9 \xe9'), needs_stack=False)
    assert stream.buffer.getvalue() == b'caf\\udce9 \\xe9' + os.linesep.encode()
