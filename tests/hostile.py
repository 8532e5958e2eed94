"""Configs that no honest hub has: a right one with parts exchanged, added, left out and nested, from a seed."""

import json
import random

WORDS = [
    *('http://127.0.0.1:9/w.pkl', 's3://bucket/w.pth', 'file:///etc/passwd', 'hf-hub:a/b', 'local-dir:/tmp'),
    *('torchvision://resnet50', '/dev/zero', '~/w.pth', '../w.npy', 'w.pkl', 'C:\\w.pkl', '$HOME', '{{ fileDirname }}'),
    *('os.system', 'builtins.eval', 'mmengine.load', 'mmseg.FCNHead', '__import__("os").system("x")', 'lambda: 1'),
    *('a' * 10**5, '\x00', '\x1b[2J', '\ud800', '', 'l1', 'relu', 'bilinear', 'resnet18', 'tf_efficientnet_lite0.in1k'),
]
KEYS = [
    *('init_cfg', 'pretrained', 'checkpoint', 'checkpoint_path', 'load_from', 'custom_imports', '_base_', '_delete_'),
    *('_scope_', 'type', 'file_client_args', 'backend_args', 'loss_decode', 'class_weight', 'sampler', 'plugins'),
    *('pretrained_cfg', 'cache_dir', 'hf_hub_id', 'model_name', '__class__', 'self', 'a' * 1000, '\ud800', 'test_cfg'),
]
NUMBERS = [0, 1, -1, 3, 64, 2**31, -(2**63), 10**30, 10**400, 0.5, 1e-300, 1e308, *map(float, ('nan', 'inf', '-inf'))]
TYPES = ['Pretrained', 'CrossEntropyLoss', 'ResNet', 'DCNv2', 'LoadAnnotations', 'os.system', 'subprocess.Popen']


def value(rng: random.Random, depth: int = 0):
    """Anything that JSON can say."""
    kind = rng.randrange(8 if depth < 4 else 4)
    if kind < 2:
        return rng.choice(WORDS)
    if kind < 4:
        return rng.choice([*NUMBERS, None, True, False])
    if kind == 4:
        return {'type': rng.choice(TYPES), rng.choice(KEYS): value(rng, depth + 1)}
    if kind == 5:
        return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 6:
        return [rng.choice([1, 8, 8192, 10**9])] * rng.choice([2, 4, 64, 5000])
    return [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 3, 9]))]


def places(content, at=()):
    """Every place in a nest of dicts and lists, as the keys that lead there."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def changed(content, rng: random.Random):
    """A copy with one to four changes."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice([1, 1, 2, 4])):
        *way, last = rng.choice(list(places(content)))
        holder = content
        for key in way:
            holder = holder[key]
        how = rng.randrange(5)
        if how < 2:
            holder[last] = value(rng)
        elif how == 2 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = value(rng)
        elif how == 3 and len(content) > 1:
            holder.pop(last)
        else:
            holder[last] = [holder[last]]
    return content
