# The built-in scenes with a small crop: what the check of the data reads of a config, and nothing else.
_base_ = ['../../configs/_base_/datasets/demo.py']
model = dict(decode_head=dict(num_classes=8))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(32, 32)),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
