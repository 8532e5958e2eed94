# SegFormer's recipe: AdamW, ten times the learning rate in the head, no decay on norms, warm-up, linear to 0, 160,000
# iterations of 16 images (4 GPUs x 4). What is published for the all-MLP head was trained for 160,000 iterations. The
# 40,000 of adamw_40k.py are Semantic FPN's: use those to compare the two heads at a quarter of the time.
_base_ = './adamw_40k.py'
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'head': dict(lr_mult=10.0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
