"""torch.export's files: the contract, torch alone, any number of images, and what a file may not hold."""

import contextlib
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from effseg import deploy
from effseg.deploy.backends import torch as backend
from effseg.deploy.quiet import quiet
from effseg.errors import ArtifactError

from .conftest import SIZE, spec_of
from .contract import BackendContract


class TestTorch(BackendContract):
    runtime = 'torch'
    runtime_module = 'torch.export.pt2_archive'
    needs_torch = True
    refused = 'int8'
    instead_of_int8 = 'bf16'
    slow_int8 = True

    def declared(self, path):
        program = torch.export.load(path)
        names = (*program.graph_signature.user_inputs, *program.graph_signature.user_outputs)
        values = [node.meta['val'] for name in names for node in program.graph.nodes if node.name == name]
        # one image or any number of them
        return [(None, str(value.dtype).removeprefix('torch.'), (1, *value.shape[1:])) for value in values]


@pytest.fixture(scope='module')
def path(tmp_path_factory, fused):
    path = tmp_path_factory.mktemp('torch') / 'model.pt2'
    backend.export(fused, spec_of('torch', 'labels'), path, [])
    return path


# the lines of docs/deploy.md behind what keeps everything but torch away
TORCH_ALONE = """
import sys
for module in ('effseg', 'mmseg', 'mmengine', 'mmcv', 'timm'):
    sys.modules[module] = None
import numpy as np
import torch
network = torch.export.load(sys.argv[1]).module()
images = torch.from_numpy(np.load(sys.argv[2]))
labels = network(images)
np.save(sys.argv[3], labels.numpy())
"""


def test_torch_alone_runs_it_on_several_images(path, images, tmp_path):
    np.save(tmp_path / 'images.npy', np.stack(images[:3]))
    command = [sys.executable, '-c', TORCH_ALONE, path, tmp_path / 'images.npy', tmp_path / 'labels.npy']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = backend.load(path).run
    np.testing.assert_array_equal(
        np.load(tmp_path / 'labels.npy'), np.concatenate([run(image[None])[0] for image in images[:3]])
    )


class Behind(torch.nn.Module):
    """A network that does something to its logits."""

    def __init__(self, change):
        super().__init__()
        self.conv, self.change = torch.nn.Conv2d(3, 3, 4, 4), change

    def logits(self, x):
        return self.change(self.conv(x))


@pytest.mark.parametrize(
    'change, most',
    [
        (lambda y: y, None),
        (lambda y: y.reshape(int(y.shape[0]), -1).reshape(y.shape), 1),
        (lambda y: y - y.mean(0, keepdim=True).relu(), 1),
    ],
    ids=['free', 'number fixed', 'images mixed'],
)
def test_takes_several_images_where_they_do_not_meet(change, most, tmp_path):
    backend.export(Behind(change), spec_of('torch'), tmp_path / 'model.pt2', [])
    module = torch.export.load(tmp_path / 'model.pt2').module()
    images = torch.zeros(4, *SIZE, 3, dtype=torch.uint8)
    assert module(images[:1]).shape[0] == 1
    if most is None:
        assert module(images).shape[0] == 4
        return
    with pytest.raises(RuntimeError, match='shape|size'):
        module(images)


def test_holds_no_path_of_the_machine_that_wrote_it(path):
    with zipfile.ZipFile(path) as file:
        assert not file.testzip()
        assert not any(b'effseg/' in file.read(name) or b'File ' in file.read(name) for name in file.namelist())


ran: list[str] = []


def run(what):
    ran.append(what)


class Runs:
    """Calls :func:`run` when it is unpickled."""

    def __reduce__(self):
        return run, ('code',)


def edit(path, member, change):
    """Rewrites a part of an archive; without the part, adds it."""
    with zipfile.ZipFile(path) as file:
        root = file.namelist()[0].partition('/')[0]
        parts = {name: file.read(name) for name in file.namelist()}
    name = f'{root}/{member}'
    parts[name] = change(parts.get(name, b''))
    with zipfile.ZipFile(path, 'w') as file:
        for name, content in parts.items():
            file.writestr(name, content)


def model(change):
    """Edits the program of a file, as JSON."""

    def apply(content):
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return 'models/model.json', apply


def weights(change):
    def apply(content):
        config = json.loads(content)
        change(next(iter(config['config'].values())))
        return json.dumps(config).encode()

    return 'data/weights/model_weights_config.json', apply


def pickled(_):
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    return buffer.getvalue()


def nodes(program):
    return program['graph_module']['graph']['nodes']


def expression(program):
    (size,) = (node for node in nodes(program) if node['target'].startswith('torch.ops.aten.sym_size'))
    part = program['graph_module']['graph']['sym_int_values'][size['outputs'][0]['as_sym_int']['as_name']]
    part['as_expr']['expr_str'] = 'print("run") or 1'


HOSTILE = {
    'a function of torch': model(lambda program: nodes(program)[0].update(target='torch.os.system')),
    'a file that an operator opens': model(
        lambda program: nodes(program)[0].update(target='torch.ops.aten.from_file.default')
    ),
    'a condition': model(lambda program: program.update(guards_code=['print("run") or True'])),
    'an expression': model(expression),
    'a name': model(lambda program: nodes(program)[0].update(name='x=print("run")')),
    'a container': model(
        lambda program: program['graph_module']['module_call_graph'][0]['signature'].update(
            in_spec='[1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]'
        )
    ),
    'pickled weights': weights(lambda tensor: tensor.update(use_pickle=True)),
    'weights elsewhere': weights(lambda tensor: tensor.update(path_name='../sample_inputs/model.pt')),
    'pickled images': ('data/sample_inputs/model.pt', pickled),
    'a library': ('data/aotinductor/model/model.so', lambda _: b'\x7fELF'),
}


@pytest.mark.parametrize('what', HOSTILE)
def test_what_could_run_code_is_refused_before_torch_reads_it(path, tmp_path, monkeypatch, what):
    copy = tmp_path / 'model.pt2'
    copy.write_bytes(path.read_bytes())
    edit(copy, *HOSTILE[what])
    monkeypatch.setattr('torch.export.pt2_archive._package.load_pt2', lambda *_: pytest.fail('torch read the file'))
    with pytest.raises(ArtifactError, match='could run code|which no file of effseg does'):
        deploy.load(copy)


def test_torch_itself_runs_what_a_file_holds(path, tmp_path):
    """What the refusals are for: were torch to refuse by itself, they could go."""
    copy = tmp_path / 'model.pt2'
    copy.write_bytes(path.read_bytes())
    edit(copy, *HOSTILE['pickled images'])
    ran.clear()
    with quiet(), contextlib.suppress(Exception):  # of what the function returns
        torch.export.load(copy)
    assert ran == ['code']
