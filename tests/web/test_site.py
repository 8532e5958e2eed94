"""The folder that the tool writes, and what it refuses."""

import dataclasses
import hashlib
import http.client
import json
import subprocess
import tarfile
import threading
import urllib.request
from pathlib import Path

import pytest

from effseg.deploy import load
from effseg.errors import ArtifactError, ConfigError, MissingRuntimeError
from effseg.outputs import RECORD
from effseg.web import runtime
from effseg.web.site import PAGE, server, write_site


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """An archive in the form of npm's, with other content; the checksum is made to fit."""
    source = tmp_path / 'dist'
    source.mkdir()
    path = tmp_path / 'package.tgz'
    with tarfile.open(path, 'w:gz') as archive:
        for name in runtime.FILES:
            (source / name).write_text(name)
            archive.add(source / name, f'package/dist/{name}')
    monkeypatch.setattr(runtime, 'SHA256', hashlib.sha256(path.read_bytes()).hexdigest())
    return str(path)


def test_the_folder_is_whole_and_the_spec_is_the_artifacts_own(artifacts, package, tmp_path):
    site = write_site(str(artifacts['labels']), str(tmp_path / 'site'), package)
    assert {path.relative_to(site).as_posix() for path in site.rglob('*') if path.is_file()} == {
        *PAGE,
        'spec.json',
        'model.onnx',
        RECORD,
        *(f'ort/{name}' for name in runtime.FILES),
    }
    spec = json.loads((site / 'spec.json').read_text())
    assert (spec['height'], spec['width'], spec['classes']) == (64, 96, ['class 0', 'class 1', 'class 2'])
    assert spec['bytes'] == artifacts['labels'].stat().st_size
    assert write_site(str(artifacts['logits']), str(site), package) == site
    assert json.loads((site / 'spec.json').read_text())['output'] == 'logits'
    assert not list(tmp_path.glob('.site*'))


def test_a_folder_with_other_things_is_left_alone(artifacts, package, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.tex').write_text('all of it')
    with pytest.raises(ConfigError, match='holds other things'):
        write_site(str(artifacts['labels']), str(tmp_path / 'mine'), package)
    assert (tmp_path / 'mine' / 'thesis.tex').read_text() == 'all of it'


def test_the_server_isolates_the_page_and_names_its_types(artifacts, package, tmp_path):
    site = write_site(str(artifacts['labels']), str(tmp_path / 'site'), package)
    with server(site, port=0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for name, kind in (
            ('worker.mjs', 'text/javascript'),
            ('ort/ort-wasm-simd-threaded.wasm', 'application/wasm'),
            ('', 'text/html'),
        ):
            with urllib.request.urlopen(f'http://127.0.0.1:{running.server_port}/{name}') as answer:
                assert answer.headers.get_content_type() == kind
                assert answer.headers['Cross-Origin-Embedder-Policy'] == 'require-corp'
        with pytest.raises(ConfigError, match='--port'):
            server(site, port=running.server_port)
        running.shutdown()


def test_other_artifacts_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match='--to onnx'):
        write_site(str(tmp_path / 'model.tflite'), str(tmp_path / 'site'))


@pytest.mark.parametrize(
    'change', [dict(align_corners=True), dict(threshold=0.3, classes=('a', 'b'), palette=[(0, 0, 0)] * 2)]
)
def test_logits_that_the_page_cannot_decide_are_refused(artifacts, package, tmp_path, monkeypatch, change):
    artifact = load(artifacts['logits'])
    artifact.spec = dataclasses.replace(artifact.spec, **change)
    monkeypatch.setattr('effseg.web.site.load', lambda path: artifact)
    with pytest.raises(ArtifactError, match='--output labels'):
        write_site(str(artifacts['logits']), str(tmp_path / 'site'), package)


@pytest.mark.parametrize('output', ['labels', 'logits'])
def test_a_bound_takes_a_file_with_confidence(artifacts, tmp_path, output):
    with pytest.raises(ConfigError, match='--unknown-below 0.5 .* takes a file of --output labels.confidence'):
        write_site(str(artifacts[output]), str(tmp_path / 'site'), unknown_below=0.5)


def test_a_file_for_another_library_is_refused(artifacts, tmp_path, monkeypatch):
    artifact = load(artifacts['logits'])
    artifact.spec = dataclasses.replace(artifact.spec, preset='transformers.js')
    monkeypatch.setattr('effseg.web.site.load', lambda path: artifact)
    with pytest.raises(ArtifactError, match='is for transformers.js; the page runs files'):
        write_site(str(artifacts['logits']), str(tmp_path / 'site'))


def test_the_command_needs_no_training_stack_and_answers_in_one_line(tool, tmp_path):
    outcome = tool('web_demo', tmp_path / 'none.onnx', '--out', tmp_path / 'site')
    assert outcome.status == 2 and outcome.err.startswith('error: no artifact') and len(outcome.err.splitlines()) == 1


def test_a_package_that_was_changed_is_not_used(tmp_path):
    path = tmp_path / 'package.tgz'
    path.write_bytes(b'something else')
    with pytest.raises(ArtifactError, match='not onnxruntime-web'):
        runtime.package(str(path))


def test_without_npm_one_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(runtime.shutil, 'which', lambda name: None)
    with pytest.raises(MissingRuntimeError, match='no npm.*--runtime'):
        runtime.package()


def test_without_a_network_one_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(runtime.shutil, 'which', lambda name: '/usr/bin/npm')

    def fails(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr='npm error code ENOTFOUND\nnpm error network')

    monkeypatch.setattr(runtime.subprocess, 'run', fails)
    with pytest.raises(MissingRuntimeError, match='ENOTFOUND.*--runtime'):
        runtime.package()
    assert not list((Path(tmp_path) / 'effseg').iterdir())


def test_nothing_of_the_users_is_deleted(artifacts, package, tmp_path, monkeypatch):
    old = tmp_path / 'old'
    old.mkdir()
    for name in ('spec.json', 'thesis.tex'):
        (old / name).write_text('all of it')
    with pytest.raises(ConfigError, match='holds other things'):
        write_site(str(artifacts['labels']), str(old), package)
    monkeypatch.chdir(old)
    with pytest.raises(ConfigError, match='holds other things'):
        write_site(str(artifacts['labels']), '.', package)
    assert {path.name: path.read_text() for path in old.iterdir()} == dict.fromkeys(
        ('spec.json', 'thesis.tex'), 'all of it'
    )


def test_a_site_in_the_working_folder_is_replaced_around_the_users_files(artifacts, package, tmp_path, monkeypatch):
    (tmp_path / 'site').mkdir()
    monkeypatch.chdir(tmp_path / 'site')
    for output in ('labels', 'logits'):
        write_site(str(artifacts[output]), '.', package)
        assert json.loads(Path('spec.json').read_text())['output'] == output
        Path('ort', 'notes.txt').write_text('mine')
    assert Path('ort', 'notes.txt').read_text() == 'mine' and not list(Path().glob('.*'))


def test_links_do_not_lead_the_writing_elsewhere(artifacts, package, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'thesis.tex').write_text('all of it')
    site = write_site(str(artifacts['labels']), str(tmp_path / 'site'), package)
    (site / 'index.html').unlink()
    (site / 'index.html').symlink_to(tmp_path / 'thesis.tex')
    with pytest.raises(ConfigError, match='symbolic link'):
        write_site(str(artifacts['labels']), str(site), package)
    (site / 'index.html').unlink()
    (site / 'ort').rename(tmp_path / 'ort')
    (site / 'ort').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(ConfigError, match='symbolic link'):
        write_site(str(artifacts['labels']), str(site), package)
    assert (tmp_path / 'thesis.tex').read_text() == 'all of it' and not list((tmp_path / 'elsewhere').iterdir())


def test_the_server_gives_the_page_and_nothing_else(artifacts, package, tmp_path, capfd):
    site = write_site(str(artifacts['labels']), str(tmp_path / 'site'), package)
    (tmp_path / 'secret').write_text('secret')
    (site / 'key.pem').write_text('secret')
    (site / 'link').symlink_to(tmp_path / 'secret')
    (site / 'labels.mjs').unlink()
    (site / 'labels.mjs').symlink_to(tmp_path / 'secret')
    with server(site, port=0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        statuses = {}
        for target in (
            *('/', '/index.html?a#b', '/ort/ort.wasm.bundle.min.mjs', '/%00', '/index.html%00', '/%ff', '/link'),
            *('/labels.mjs', '/key.pem', '/ort/', '/../secret', '/%2e%2e/secret', '/ort/../index.html', '/ort'),
            *('//index.html', 'http://x/secret', '*', '/' + 'a' * 5000, f'/{RECORD}', '/ort/%2e%2e/%2e%2e/secret'),
        ):
            connection = http.client.HTTPConnection('127.0.0.1', running.server_port)
            connection.putrequest('GET', target)
            connection.endheaders()
            answer = connection.getresponse()
            statuses[target] = answer.status
            assert b'secret' not in answer.read()
            connection.close()
        running.shutdown()
    assert [statuses[target] for target in ('/', '/index.html?a#b', '/ort/ort.wasm.bundle.min.mjs')] == [200] * 3
    assert [statuses[target] for target in ('/%00', '/index.html%00', '/%ff')] == [400] * 3
    assert {status for target, status in statuses.items() if target not in ('//index.html',)} == {200, 400, 404}
    assert sum(status == 200 for status in statuses.values()) <= 4
    assert 'Traceback' not in capfd.readouterr().err
