# EfficientViT's head (https://arxiv.org/abs/2205.14756) on EfficientFormer, at stride 8: it sees the neighbours of a
# pixel, which a backbone that attends in its last blocks only has to leave to its decoder.
# EfficientViT-B1 has a width of 64; on CamVid 96 reached more behind L1, in half of Semantic FPN's time
# (docs/benchmarks.md). Published on ADE20K, for EfficientViT-B1: 42.84 mIoU; for EfficientFormer nothing.
_base_ = './fpn_effformer.py'
model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='EfficientViTHead',
        in_channels=[96, 224, 448],
        in_index=[1, 2, 3],
        width=96,
        channels=384,
        dropout_ratio=0.1,
        num_classes=150,
        # over several GPUs; MMEngine makes it BN in a single process
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
