"""An artifact in MMSegmentation's place gives MMSegmentation's labels through a config's pipeline, and those of an app
by its fit."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import required
from mmengine.config import Config
from networks import MEAN, STD, TINY, segmenter
from PIL import Image

from effseg import deploy
from effseg.datasets.images import read_image
from effseg.deploy.program import Unfused
from effseg.deploy.spec import Spec
from effseg.errors import ArtifactError, ConfigError

pytest.importorskip('mmseg')
from mmseg.structures import SegDataSample


@pytest.fixture(scope='module')
def model():
    return segmenter(resolution=3).eval()


@pytest.fixture(scope='module')
def artifact(model, tmp_path_factory):
    required('onnxscript')
    required('onnxruntime')
    spec = Spec(
        backend='onnx',
        height=64,
        width=96,
        output='logits',
        precision='fp32',
        mean=MEAN,
        std=STD,
        classes='abc',
        palette=[(0, 0, 0)] * 3,
        checkpoint_sha256='0' * 64,
        effseg='0',
    )
    images = [np.random.default_rng(0).integers(0, 256, spec.image_shape, dtype=np.uint8)]
    path = tmp_path_factory.mktemp('artifact') / 'model.onnx'
    return deploy.export(model, Unfused(model), spec, path, images).path


def config(**changes) -> Config:
    model = dict(
        type='EncoderDecoder',
        test_cfg=dict(mode='whole'),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True),
    )
    for key, value in changes.items():
        model[key].update(value)
    return Config(dict(model=model))


def build(cfg, path):
    from effseg.segmentors.artifact import artifact_segmentor

    return artifact_segmentor(cfg, str(path), 'config').eval()


@pytest.mark.parametrize('size', [(64, 96), (100, 150)])
def test_windows_give_the_logits_of_mmsegmentation(model, artifact, size):
    cfg = config(test_cfg=dict(mode='slide', crop_size=(64, 96), stride=(40, 64)))
    scored = build(cfg, artifact)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = dict(inputs=[image], data_samples=None)
    model.test_cfg = cfg.model.test_cfg
    with torch.no_grad():
        expected = model.slide_inference(model.data_preprocessor(data)['inputs'], [{}])
        result = scored.inference(scored.data_preprocessor(data)['inputs'], [{}])
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_smaller_images_are_padded_with_the_mean(artifact):
    cfg = config()
    image = torch.randint(0, 256, (1, 3, 40, 50), generator=torch.Generator().manual_seed(1)).float()
    model = build(cfg, artifact)
    assert model.inference(image, [{}]).shape == (1, 3, 40, 50)
    model.artifact.spec = dataclasses.replace(model.artifact.spec, mean=(-10, 0.5, 300))
    assert model._window(image[0])[-1, -1].tolist() == [0, 1, 255]  # as an app does: deploy.fit.fill_of


@pytest.mark.parametrize(
    'changes, error',
    [
        (dict(data_preprocessor=dict(mean=[0, 0, 0])), ArtifactError),
        (dict(data_preprocessor=dict(mean=None, std=None)), ArtifactError),
        (dict(data_preprocessor=dict(std=None)), ArtifactError),
        (dict(data_preprocessor=dict(bgr_to_rgb=False)), ConfigError),
        (dict(data_preprocessor=dict(test_cfg=dict(size_divisor=32))), ConfigError),
    ],
)
def test_a_config_that_feeds_something_else_is_refused(artifact, changes, error):
    with pytest.raises(error):
        build(config(**changes), artifact)


def test_windows_larger_than_the_file_are_refused(artifact):
    cfg = config(test_cfg=dict(mode='slide', crop_size=(128, 128), stride=(64, 64)))
    with pytest.raises(ConfigError, match='larger than'):
        build(cfg, artifact)


@pytest.mark.parametrize(
    'name, added', [('test', []), ('report', ['--out', 'out']), ('predict', ['images', '--out-dir', 'out'])]
)
def test_every_tool_refuses_a_file_of_another_class_count(tool, scenes, artifact, tmp_path, monkeypatch, name, added):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'images').symlink_to(scenes / 'images' / 'val')
    outcome = tool(name, TINY, artifact, *added)
    assert outcome.status == 2 and outcome.err.startswith('error: ') and len(outcome.err.splitlines()) == 1
    assert '3 classes' in outcome.err and '8' in outcome.err


@pytest.mark.parametrize('shown', [(100, 230), (50, 115), (33, 77)])
def test_labels_in_windows_favor_no_class(artifact, shown):
    """Where windows disagree, averaged labels would tie, and ties go to the lower class: numbering the classes the
    other way round must change nothing but the numbers."""
    cfg = config()
    scored = build(cfg, artifact)
    spec = dataclasses.replace(scored.artifact.spec, output='labels')

    class File:
        def __init__(self, numbers):
            self.spec, self.numbers, self.random = spec, np.array(numbers), np.random.default_rng(0)

        def labels(self, image):
            return self.numbers[self.random.integers(0, 3, image.shape[:2])]

        __call__ = labels

    def predict(numbers):
        scored.artifact = File(numbers)
        meta = dict(img_shape=(100, 230), ori_shape=shown, pad_shape=(100, 230), padding_size=[0, 0, 0, 0])
        (sample,) = scored.predict(torch.zeros(1, 3, 100, 230), [SegDataSample(metainfo=meta)])
        return sample.pred_sem_seg.data

    assert predict([0, 1, 2]).shape == (1, *shown)
    assert torch.equal(predict([0, 1, 2]), 2 - predict([2, 1, 0]))


def test_labels_are_not_averaged(artifact):
    cfg = config()
    scored = build(cfg, artifact)
    scored.artifact.spec = dataclasses.replace(scored.artifact.spec, output='labels')
    with pytest.raises(ConfigError, match='--output logits'):
        scored.inference(torch.zeros(1, 3, 64, 96), [{}])


@pytest.fixture(scope='module')
def file(segmentor, random_stats, tmp_path_factory):
    """tiny.py's network as a file that is smaller than its photos."""
    required('onnxruntime')
    from effseg.apis.export import export

    folder = tmp_path_factory.mktemp('file')
    lived_in = random_stats(copy.deepcopy(segmentor)).float()
    torch.save({'meta': {}, 'state_dict': lived_in.state_dict()}, folder / 'tiny.pth')
    return export(
        TINY,
        str(folder / 'tiny.pth'),
        'onnx',
        size=(32, 64),
        output='logits',
        proof_images=2,
        fuse=False,
        fit='stretch',
    ).path


@pytest.mark.parametrize('fit', [None, 'windows'])
def test_a_file_is_scored_as_an_app_runs_it(tool, scenes, file, tmp_path, fit):
    """Photo, fit, labels and score, as an app that reads the files itself has them; and what predict writes."""
    written = [tmp_path / 'labels' / '{}.png']
    options = ['--fit', fit] if fit else []
    outcome = tool('test', TINY, file, '--work-dir', tmp_path, '--out', tmp_path / 'labels', *options)
    words = 'as an app does: photos of any size by stretch, 32x64'
    if fit:
        words = 'otherwise than an app, which goes by stretch: photos of any size by windows'
    else:
        assert tool('predict', TINY, file, scenes / 'images/val', '--out-dir', tmp_path / 'shown').status == 0
        written.append(tmp_path / 'shown' / '{}_labels.png')
    assert outcome.status == 0 and f'scored {words}' in outcome.out, outcome
    artifact = deploy.load(file)
    right = total = 0
    for path in sorted((scenes / 'images' / 'val').iterdir()):
        labels = artifact.labels(read_image(path), fit)
        assert labels.shape == (48, 72) and len(np.unique(labels)) > 1
        for result in written:
            np.testing.assert_array_equal(np.asarray(Image.open(str(result).format(path.stem))), labels)
        truth = np.asarray(Image.open(scenes / 'annotations' / 'val' / f'{path.stem}.png'))
        right += (labels == truth)[truth < 8].sum()
        total += (truth < 8).sum()
    assert f'aAcc {100 * right / total:.2f}' in outcome.out


def test_a_file_is_scored_as_its_checkpoint_where_that_is_asked_for(tool, scenes, file, tmp_path):
    window = ['model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(32,64)', 'model.test_cfg.stride=(16,32)']
    of_file, of_checkpoint = (
        tool('test', TINY, *what, '--work-dir', tmp_path, '--cfg-options', *window)
        for what in ([file, '--fit', 'config'], [file.with_name('tiny.pth')])
    )
    assert of_file.status == of_checkpoint.status == 0, (of_file, of_checkpoint)
    assert 'scored as a checkpoint' in of_file.out and 'scored' not in of_checkpoint.out
    assert of_file.out.splitlines()[-2].startswith('aAcc') and of_file.out.splitlines()[-2] in of_checkpoint.out


@pytest.mark.parametrize(
    'fit, added, words', [('stretch', ['--tta'], '--tta'), ('crop', [], 'letterbox'), ('config', None, 'a checkpoint')]
)
def test_a_fit_that_cannot_be_is_one_line(tool, file, fit, added, words):
    what = file.with_name('tiny.pth') if added is None else file
    outcome = tool('test', TINY, what, '--fit', fit, *(added or []))
    assert outcome.status == 2 and len(outcome.err.splitlines()) == 1 and words in outcome.err
