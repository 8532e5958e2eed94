"""Labels from stride-4 logits take every turn that MMSegmentation's predict takes."""

import copy

import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample
from networks import SMALL, segmenter

from effseg.errors import FuseError
from effseg.segmentors.network import LabelSegmentor, fused_segmentor, label_segmentor


@pytest.fixture
def model(random_stats, request):
    options = getattr(request, 'param', {})
    classes = 2 if 'threshold' in options else 7
    return random_stats(segmenter(SMALL, classes, channels=16, head=options))


def samples(*metas):
    return [SegDataSample(metainfo=dict(meta)) for meta in metas]


PADDED = dict(
    img_shape=(60, 90),
    pad_shape=(64, 96),
    ori_shape=(75, 113),
    img_padding_size=[0, 6, 0, 4],
    padding_size=[0, 6, 0, 4],
)
METAS = {
    'padded': [PADDED],
    'padded by another name': [
        dict(img_shape=(60, 90), pad_shape=(64, 96), ori_shape=(40, 51), padding_size=[2, 4, 1, 3])
    ],
    'unpadded': [dict(img_shape=(64, 96), ori_shape=(64, 96))],
    'flipped': [
        dict(PADDED, flip=True, flip_direction='horizontal'),
        dict(PADDED, flip=True, flip_direction='vertical'),
    ],
    'a batch': [PADDED, dict(PADDED, ori_shape=(31, 200)), dict(PADDED, img_padding_size=[0, 0, 0, 0])],
}


def check(model, other, metas, inputs):
    expected = model.predict(inputs, metas and samples(*metas))
    found = other.predict(inputs, metas and samples(*metas))
    for sample, reference in zip(found, expected, strict=True):
        labels = sample.pred_sem_seg.data
        assert labels.dtype == torch.int64 and labels.shape == reference.pred_sem_seg.data.shape
        assert torch.equal(labels, reference.pred_sem_seg.data.long())


@pytest.mark.parametrize('metas', [None, *METAS.values()], ids=['none', *METAS])
@pytest.mark.parametrize('model', [{}, dict(align_corners=True)], indirect=True, ids=['', 'align_corners'])
@torch.no_grad()
def test_every_turn_of_predict(model, metas):
    inputs = torch.randn(len(metas or [0, 0]), 3, 64, 96, generator=torch.Generator().manual_seed(0)).double()
    before = copy.deepcopy(model.state_dict())
    for other in (label_segmentor(model), fused_segmentor(model)):
        assert isinstance(other, LabelSegmentor)
        check(model, other, metas, inputs)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize('model', [dict(out_channels=1, threshold=0.45)], indirect=True)
@torch.no_grad()
def test_one_logit_and_a_threshold(model, monkeypatch):
    inputs = torch.randn(1, 3, 64, 96).double()
    for other in (label_segmentor(model), fused_segmentor(model)):
        check(model, other, [PADDED], inputs)


@torch.no_grad()
def test_windows_are_averaged_as_mmsegmentation_does(model):
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    inputs = torch.randn(1, 3, 96, 128).double()
    meta = dict(img_shape=(96, 128), pad_shape=(96, 128), ori_shape=(70, 91), padding_size=[0, 0, 0, 0])
    check(model, fused_segmentor(model), [meta], inputs)


def test_a_model_that_labels_in_its_own_way_is_left_alone(model):
    class Own(type(model)):
        pass

    model.__class__ = Own
    assert label_segmentor(model) is model
    with pytest.raises(FuseError, match='Identity'):
        fused_segmentor(torch.nn.Identity())
