# Semantic FPN (https://arxiv.org/abs/1901.02446) on EfficientFormerV2 (https://arxiv.org/abs/2212.08059)
_base_ = './fpn_effformer.py'
model = dict(
    backbone=dict(_delete_=True, type='EfficientFormerV2', arch='s0'),
    neck=dict(in_channels=[32, 48, 96, 176]))
# the backbone's BatchNorms are trained, over several GPUs together, as in the published runs; norm_eval=True would
# freeze them
sync_bn = 'torch'
