# The same from random weights: one higher rate for all, and layer scales, which start at 1e-5, that learn faster than
# the rest, or a short training hardly uses the blocks behind them. Train longer than from ImageNet weights.
_base_ = './small_data.py'
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, custom_keys=dict(gamma=dict(lr_mult=10.0))))
