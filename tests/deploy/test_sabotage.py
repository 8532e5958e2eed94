"""Files that compute something else than the trained model: every one is refused, in every precision and output.

In the default tier the written file is played by the program in torch, with what the precision does to its weights, so
that a sabotage takes no conversion; the slow tier goes through every runtime. fp16, bf16 and int8 come behind a file of
fp32, which is right there: what is refused is the file of the precision itself.
"""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from networks import segmenter
from torch import nn

import effseg
from effseg import deploy
from effseg.deploy import accelerator, backends, parity, quantize
from effseg.deploy.program import Program
from effseg.deploy.reference import Reference
from effseg.deploy.spec import beside
from effseg.errors import ConfigError, ParityError

from .conftest import SIZE, learn, need, spec_of

RUNTIMES = {'onnx': ('fp32', 'fp16', 'int8'), 'executorch': ('fp32', 'int8'), 'litert': ('fp32', 'fp16', 'int8')}
RUNTIMES['coreml'] = RUNTIMES['onnx']
RUNTIMES['torch'] = ('fp32', 'bf16')
SHOWN = 10  # scenes, in which all classes occur
SLOW = pytest.mark.slow


def changed(network, before=lambda x: x, after=lambda x: x):
    """A network with something done to its images or its logits; its layers keep their names, by which int8 leaves some
    in float."""

    class Changed(type(network)):
        def logits(self, x):
            return after(super().logits(before(x)))

    other = copy.copy(network)
    other.__class__ = Changed
    return other


def order(*indices):
    return lambda x: torch.cat([x[:, index : index + 1] for index in indices], 1)


def without(label):
    lower = 1e3 * nn.functional.one_hot(torch.tensor([label]), 8).reshape(1, 8, 1, 1)  # not every converter has one_hot
    return lambda logits: logits - lower


def shifted(pixels):
    return lambda x: torch.cat([x[:, :, :, :pixels], x[:, :, :, :-pixels]], 3)


def edited(change):
    def sabotage(network):
        other = copy.deepcopy(network)
        for name, parameter in other.named_parameters():
            change(name, parameter)
        return other

    return sabotage


SABOTAGES = {
    'two classes exchanged': lambda net: changed(net, after=order(0, 1, 2, 4, 3, 5, 6, 7)),
    'two rare classes exchanged': lambda net: changed(net, after=order(0, 7, 2, 3, 4, 5, 6, 1)),
    'a class of 7 % wiped out': lambda net: changed(net, after=without(6)),
    'a class of 2 % wiped out': lambda net: changed(net, after=without(7)),
    'a class of 0.6 % wiped out': lambda net: changed(net, after=without(1)),
    'logits shifted by a cell': lambda net: changed(net, after=shifted(1)),
    'image shifted by four pixels': lambda net: changed(net, before=shifted(4)),
    'BGR': lambda net: changed(net, before=order(2, 1, 0)),
    'mean off by one': lambda net: changed(net, before=lambda x: x + 1 / 57),
    'std off by five percent': lambda net: changed(net, before=lambda x: x * 1.05),
    'another checkpoint': edited(lambda name, parameter: parameter.mul_(1.05)),
    'biases zeroed': edited(lambda name, parameter: parameter.zero_() if name.endswith('bias') else None),
    'a channel that is not wired': edited(
        lambda name, p: p[0].zero_() if name == 'decoder.classifier.weight' else None
    ),
}


@pytest.fixture(scope='module')
def network(trained):
    return effseg.fuse(trained, size=SIZE).exportable()


def arguments(scenes, precision, masks):
    scenes = scenes[:SHOWN]
    images = [image for image, _ in scenes]
    return dict(
        images=images,
        calibration=images[:4] if precision == 'int8' else [],
        masks=[mask for _, mask in scenes] if masks else [],
    )


@pytest.mark.parametrize('output', ['labels', 'logits'])
def test_what_is_converted_wrong_is_refused(trained, network, scenes, tmp_path, in_torch, output):
    given = arguments(scenes, 'fp32', output == 'labels')
    spec = spec_of('onnx', output, classes=8)
    done = deploy.export(trained, network, spec, tmp_path / 'm.onnx', **given)
    assert done.parity.agreement > 0.999 and not done.inaccuracy
    for name, sabotage in SABOTAGES.items():
        with torch.no_grad():
            other = sabotage(network)
        with pytest.raises(ParityError):
            deploy.export(trained, other, spec, tmp_path / 'other.onnx', **given)
            pytest.fail(f'{name} was accepted')
    assert {file.name for file in tmp_path.iterdir()} == {'m.onnx', 'm.onnx.spec.json'}


# they change fewer labels than int8 does by itself, and are seen in the file of fp32 that an int8 file comes from
UNDER_INT8 = {'mean off by one', 'std off by five percent', 'another checkpoint'}
PLAYED = [('fp16', 'mean off by one'), *(('int8', name) for name in SABOTAGES if name not in UNDER_INT8)]


@pytest.mark.parametrize('masks', [True, pytest.param(False, marks=SLOW)])
@pytest.mark.parametrize('precision, name', PLAYED)
def test_what_goes_wrong_behind_fp32_is_refused(trained, network, scenes, tmp_path, in_torch, precision, masks, name):
    in_torch[precision] = SABOTAGES[name]
    spec = spec_of('onnx', 'labels', precision, classes=8)
    with pytest.raises(ParityError, match='too inaccurate|does not compute') as raised:
        deploy.export(trained, network, spec, tmp_path / 'm.onnx', **arguments(scenes, precision, masks))
    assert 'worst class' in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_what_rounding_does_not_explain_is_refused(trained, network, scenes, precision):
    spec = spec_of('onnx', 'labels', precision, classes=8)
    reference = accelerator.shown(Reference(trained, spec, [image for image, _ in scenes[:SHOWN]]), spec)

    def file(network):  # of fp16 what ONNX Runtime makes of it on a CPU, with float32 in between
        program = Program(network, spec).eval()
        in_float32 = torch.no_grad()(lambda image: program(torch.from_numpy(image[None]))[0].numpy())
        return in_float32 if precision == 'fp16' else accelerator.in_precision(network, spec)

    accelerator.check_file(file(network), network, reference, spec)
    results = list(map(accelerator.in_precision(network, spec), reference.images))
    for name, sabotage in SABOTAGES.items():
        with torch.no_grad():
            other = file(sabotage(network))
        with pytest.raises(ParityError, match='where rounding changes'):
            parity.check_rounding(other, results, reference, spec)
            pytest.fail(f'{name} was accepted')


def calibrations(scenes):
    images = np.stack([image for image, _ in scenes[SHOWN:]])
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    return dict(black=0 * images, dark=images // 8, white=0 * images + 255, noise=noise, scenes=images)


def test_images_unlike_those_of_the_proof_are_no_good_to_calibrate_on(network, scenes):
    spec, proof = spec_of('onnx', 'labels', 'int8', classes=8), [image for image, _ in scenes[:SHOWN]]
    said = {kind: quantize.unlike(network, spec, list(own), proof) for kind, own in calibrations(scenes).items()}
    assert said.pop('scenes') is None and all(said.values()), said


def test_an_int8_file_that_was_calibrated_on_noise_says_so(trained, network, scenes, tmp_path, in_torch):
    given = dict(arguments(scenes, 'int8', True), calibration=list(calibrations(scenes)['noise']))
    path = tmp_path / 'm.onnx'
    done = deploy.export(trained, network, spec_of('onnx', 'labels', 'int8', classes=8), path, **given)
    assert 'WARNING, calibrated on other images than it was compared on: of ' in str(done)
    assert json.loads(beside(path).read_text())['proof']['calibration_unlike'] == done.unlike


def test_images_that_show_one_class_prove_no_file_of_labels(trained, network, scenes, tmp_path, in_torch):
    sure = copy.deepcopy(trained)
    sure.decode_head.conv_seg.bias[3] += 1e3
    constant = changed(network, after=lambda logits: 0 * logits + torch.eye(8)[3].reshape(1, 8, 1, 1))
    for output, said in (('labels', 'one class alone'), ('logits', 'logits within')):
        given = arguments(scenes, 'fp32', False)
        with pytest.raises(ParityError, match=said):
            deploy.export(sure, constant, spec_of('onnx', output, classes=8), tmp_path / 'm.onnx', **given)


def test_an_inaccurate_file_is_kept_only_when_asked_and_says_so(trained, network, scenes, tmp_path, in_torch):
    in_torch['int8'] = SABOTAGES['a class of 2 % wiped out']
    spec = spec_of('onnx', 'labels', 'int8', classes=8)
    given = arguments(scenes, 'int8', True)
    with pytest.raises(ParityError, match='--keep-inaccurate'):
        deploy.export(trained, network, spec, tmp_path / 'm.onnx', **given)
    done = deploy.export(trained, network, spec, tmp_path / 'm.onnx', **given, keep_inaccurate=True)
    assert "'class 7'" in done.inaccuracy and 'INACCURATE' in str(done)
    assert '"inaccuracy": "1 class' in (tmp_path / 'm.onnx.spec.json').read_text()


@pytest.mark.parametrize('runtime', ['onnx', 'litert'])  # by argmax and by arithmetic
@pytest.mark.parametrize('output', ['labels', 'logits'])
@pytest.mark.parametrize('head', [dict(align_corners=True), dict(num_classes=2, out_channels=1, threshold=0.4)])
def test_other_heads_give_what_predict_gives(random_stats, scenes, tmp_path, in_torch, runtime, output, head):
    model = random_stats(segmenter(head=head, resolution=3)).float()
    decided = dict(align_corners=model.decode_head.align_corners, classes=model.decode_head.num_classes)
    if model.decode_head.out_channels == 1:
        decided['threshold'] = 0.4
    spec = spec_of(runtime, output, **decided)
    given = arguments(scenes, 'fp32', False)
    with torch.no_grad():
        network = effseg.fuse(model, size=SIZE).exportable()
    path = tmp_path / f'm{backends.SUFFIXES[runtime]}'
    done = deploy.export(model, network, spec, path, **given)
    assert done.parity.agreement > 0.9999 and min(own.expected for own in done.parity.classes) > 100
    wrong = dataclasses.replace(spec, align_corners=not spec.align_corners)
    if 'threshold' in decided:
        wrong = dataclasses.replace(spec, threshold=0.6)
    with pytest.raises(ParityError):
        deploy.export(model, network, wrong, path, **given)


def test_a_folder_in_the_place_of_the_spec_is_kept(trained, network, scenes, tmp_path):
    mine = tmp_path / 'm.onnx.spec.json' / 'mine.txt'
    mine.parent.mkdir()
    mine.write_text('mine')
    with pytest.raises(ConfigError, match='is a folder of yours'):
        deploy.export(trained, network, spec_of('onnx', classes=8), tmp_path / 'm.onnx', **arguments(scenes, 'fp32', 0))
    assert mine.read_text() == 'mine'


@pytest.mark.parametrize(
    'precision, remedy', [('int8', '--calibration, or fp32'), ('fp16', 'Try fp32'), ('bf16', 'Try fp32')]
)
def test_the_remedy_is_one_for_the_precision(precision, remedy):
    proof = parity.Parity(1, 0.0, 0.0, 1.0, 0.999, 100, miou=10.0, source_miou=50.0)
    with pytest.raises(ParityError, match=remedy):
        parity.judge(proof, precision)


@pytest.mark.parametrize('scale', [3e38, -3e38])
def test_a_model_that_gives_no_numbers_proves_nothing(trained, scenes, scale):
    diverged = copy.deepcopy(trained)
    diverged.decode_head.conv_seg.weight.data[3] = scale
    with pytest.raises(ParityError, match='itself gives values that are not numbers'):
        Reference(diverged, spec_of('onnx', classes=8), [scenes[0][0]])


def test_a_head_of_other_classes_is_refused(trained, network, scenes, tmp_path):
    spec = spec_of('onnx', 'labels', classes=3)
    with pytest.raises(ConfigError, match='num_classes=8 and out_channels=8, the data set 3 classes'):
        deploy.export(trained, network, spec, tmp_path / 'm.onnx', **arguments(scenes, 'fp32', False))


BEHIND = [
    pytest.param(runtime, precision, name, id=f'{runtime}-{precision}-{name}')
    for runtime, precisions in RUNTIMES.items()
    for precision in precisions
    for name in SABOTAGES
    if precision != 'int8' or name not in UNDER_INT8
]


@pytest.fixture(scope='module')
def small(scenes):
    """A model of two blocks and its network: conversions of a few seconds, a hundred and fifty times."""
    arch = dict(depths=(1, 1, 0, 0), embed_dims=(32, 48, 48, 48), num_vit=0)
    head = dict(type='SegformerHead', in_index=[0, 1])
    model = learn(segmenter(arch, classes=8, channels=48, head=head, out_indices=(0, 1)), scenes)
    return model, effseg.fuse(model, size=SIZE).exportable()


@pytest.fixture(scope='module')
def twins(tmp_path_factory):
    """The fp32 files of the network as it is, by runtime, to be made once."""
    return tmp_path_factory.mktemp('twins'), {}


@pytest.mark.slow
@pytest.mark.parametrize('runtime, precision, name', BEHIND)
def test_every_runtime_refuses(small, scenes, tmp_path, monkeypatch, twins, runtime, precision, name):
    """The file of the precision is made of another network; the one of fp32 that stands in front of it is right."""
    need(runtime)
    monkeypatch.setattr(quantize, 'SHARES', ())
    writer, (folder, made) = backends.backend(runtime), twins
    real = writer.export

    def export(network, own, path, images, floats=()):
        if own.precision != precision:
            twin = folder / path.name
            made[runtime] = made.get(runtime) or real(network, own, twin, images, floats)
            (shutil.copytree if twin.is_dir() else shutil.copy)(twin, path)
            return made[runtime]
        with torch.no_grad():
            return real(SABOTAGES[name](network), own, path, images, floats)

    monkeypatch.setattr(writer, 'export', export)
    path = tmp_path / f'm{backends.SUFFIXES[runtime]}'
    with pytest.raises(ParityError) as raised:
        own = spec_of(runtime, 'labels', precision, classes=8)
        deploy.export(*small, own, path, **arguments(scenes, precision, True))
    assert precision in str(raised.value) or precision == 'fp32'
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('output', ['labels', 'logits'])
@pytest.mark.parametrize('head', [dict(align_corners=True), dict(num_classes=2, out_channels=1)])
def test_every_runtime_exports_other_heads(random_stats, images, tmp_path, runtime, output, head):
    need(runtime)
    model = random_stats(segmenter(head=head, resolution=3)).float()
    decided = dict(align_corners=model.decode_head.align_corners, classes=model.decode_head.num_classes)
    if model.decode_head.out_channels == 1:
        decided['threshold'] = float(model.decode_head.threshold)
    with torch.no_grad():
        network = effseg.fuse(model, size=SIZE).exportable()
    path = tmp_path / f'm{backends.SUFFIXES[runtime]}'
    done = deploy.export(model, network, spec_of(runtime, output, **decided), path, images)
    assert done.parity.agreement >= parity.THRESHOLDS['fp32'].agreement and done.delegation.delegates == 1
    if runtime != 'coreml':
        assert not done.delegation.left
        assert np.isin(deploy.load(path).labels(images[0]), range(decided['classes'])).all()
