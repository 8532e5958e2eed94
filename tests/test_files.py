import os

import pytest

from effseg import files
from effseg.errors import ConfigError


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    files.write(path, 'é')
    assert path.read_bytes() == 'é'.encode()

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space'):
        files.write(path, b'new')
    assert path.read_bytes() == 'é'.encode() and [entry.name for entry in tmp_path.iterdir()] == ['a.json']


def test_the_digest_of_a_folder_knows_names_and_contents(tmp_path):
    def folder(name, **contents):
        (tmp_path / name / 'inner').mkdir(parents=True)
        for file, text in contents.items():
            (tmp_path / name / 'inner' / file).write_text(text)
        return tmp_path / name

    one = folder('one', a='1', b='22')
    assert files.size(one) == 3 and files.size(one / 'inner/b') == 2
    assert files.digest(one) == files.digest(folder('same', a='1', b='22'))
    assert files.digest(one) not in (
        files.digest(folder('renamed', a='1', c='22')),
        files.digest(folder('changed', a='1', b='23')),
    )


def test_a_name_that_opencv_cannot_take_is_refused():
    files.check_name('ä.mp4')
    with pytest.raises(ConfigError, match='not UTF-8'):
        files.check_name(os.fsdecode(b'a\xff.mp4'))
