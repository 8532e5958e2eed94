"""What may be replaced in a folder of results, for names and records that a user or a stranger may have put there."""

import json

import pytest

from effseg.errors import ConfigError
from effseg.outputs import RECORD, OutputFolder


def test_only_what_was_claimed_is_replaced(tmp_path):
    OutputFolder(tmp_path / 'out').claim(['a', 'b'])
    (tmp_path / 'out' / 'a').write_text('ours')
    (tmp_path / 'out' / 'c').write_text('theirs')
    OutputFolder(tmp_path / 'out').claim(['a', 'd'])
    with pytest.raises(ConfigError, match='/c is there and was not written by effseg'):
        OutputFolder(tmp_path / 'out').claim(['a', 'c'])
    assert json.loads((tmp_path / 'out' / RECORD).read_text()) == ['a', 'b', 'd']


@pytest.mark.parametrize('record', ['', '{', 'null', '7', '"a"', '[["a"], 1]', '[' * 10**5, '\udc80'])
def test_a_record_that_is_none_gives_nothing_away(tmp_path, record):
    (tmp_path / RECORD).write_text(record, errors='surrogateescape')
    (tmp_path / 'thesis').write_text('all of it')
    with pytest.raises(ConfigError, match='thesis'):
        OutputFolder(tmp_path).claim(['thesis'])


def test_a_path_that_no_folder_can_have_is_one_error(tmp_path):
    (tmp_path / 'a').symlink_to(tmp_path / 'b')
    (tmp_path / 'b').symlink_to(tmp_path / 'a')
    for folder in ('\0', tmp_path / 'a' / 'out'):
        with pytest.raises((ConfigError, OSError)):
            OutputFolder(folder).claim(['x'])


def test_a_record_cannot_lead_out_of_the_folder(tmp_path):
    (tmp_path / 'thesis').write_text('all of it')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'a').symlink_to(tmp_path / 'thesis')
    (tmp_path / 'out' / RECORD).write_text('["a", "../thesis"]')
    for name in ('a', '../thesis'):
        with pytest.raises(ConfigError, match='symbolic link'):
            OutputFolder(tmp_path / 'out').claim([name])
