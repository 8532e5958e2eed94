# EfficientFormerV2-S0 + SegFormer's all-MLP head on the built-in scenes: random weights, minutes on two cores.
_base_ = [
    '_base_/models/mlp_effformerv2.py',
    '_base_/datasets/demo.py',
    '_base_/schedules/demo.py',
    '_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(128, 192)),
    decode_head=dict(
        num_classes=8,
        norm_cfg=dict(type='BN'),  # also over several processes: CPUs have no SyncBN
        loss_decode=dict(class_weight=[1.0, 4.0, 2.0, 1.0, 1.0, 1.5, 2.0, 3.0])))  # small things are few pixels
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
log_processor = dict(window_size=10)
