# The all-MLP head with a depthwise 5x5 conv, half as wide, on EfficientFormerV2: on CamVid V2-S0 reached more with it
# than with the plain one of 256 channels, in less time (docs/benchmarks.md).
_base_ = './mlp_effformerv2.py'
model = dict(decode_head=dict(type='DepthwiseSegformerHead', channels=128))
