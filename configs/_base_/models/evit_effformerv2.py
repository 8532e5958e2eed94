# EfficientViT's head on EfficientFormerV2: on CamVid V2-S0 and V2-S1 reached more with it than with any other head in
# the same training time (docs/benchmarks.md)
_base_ = './evit_effformer.py'
model = dict(
    backbone=dict(_delete_=True, type='EfficientFormerV2', arch='s0'),
    decode_head=dict(in_channels=[48, 96, 176]))
# the backbone's BatchNorms are trained, over several GPUs together, as in the published runs; norm_eval=True would
# freeze them
sync_bn = 'torch'
