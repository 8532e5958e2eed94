# the second generation's recipe differs in the floor of the learning rate
_base_ = './adamw_40k.py'
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=0, end=40000, by_epoch=False)]
