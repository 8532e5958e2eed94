# SegFormer's all-MLP head (https://arxiv.org/abs/2105.15203) on EfficientFormer, linear per level as SegFormer had it.
# Published on ADE20K after 160,000 iterations, for backbones of others: MiT-B0 37.4 mIoU (SegFormer); EMOv2-1M, 2M, 5M
# and 20M 37.0, 40.2, 43.0, 47.3, with Semantic FPN 37.1, 39.9, 42.3, 46.8 (EMOv2's repository; a ReLU per level).
# Nothing is published for it on EfficientFormer. With a depthwise 5x5 conv: dwmlp_effformerv2.py.
_base_ = './fpn_effformer.py'
model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[48, 96, 224, 448],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        # over several GPUs; MMEngine makes it BN in a single process
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        act_cfg=None,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
