"""Parameter names: from the original code's to ours, which are timm's.

The original (https://github.com/snap-research/EfficientFormer) numbers its stages ``network.0, 2, 4, 6``, the
downsampling layers between them ``network.1, 3, 5``, and the segmenter's output norms ``norm0, 2, 4, 6``. Its
segmentation code keeps two attention bias tables, a parameter ``attention_biases_seg`` that is used and a buffer
``attention_biases`` that is not.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

# pattern and replacement, as re.sub takes them
Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

_SHARED: Rules = (
    (r'^norm([0246])\.', lambda match: f'norm{int(match[1]) // 2}.'),
    (r'^network\.([0246])\.(\d+)\.', lambda match: f'stages.{int(match[1]) // 2}.blocks.{match[2]}.'),
    (r'^network\.([135])\.', lambda match: f'stages.{int(match[1]) // 2 + 1}.downsample.'),
    (r'\.attention_biases_seg$', '.attention_biases'),
    (r'\.layer_scale_([12])$', r'.ls\1.gamma'),
)

EFFICIENTFORMER: Rules = _SHARED + (
    (r'^patch_embed\.0\.', 'stem.conv1.'),
    (r'^patch_embed\.1\.', 'stem.norm1.'),
    (r'^patch_embed\.3\.', 'stem.conv2.'),
    (r'^patch_embed\.4\.', 'stem.norm2.'),
    (r'\.downsample\.proj\.', '.downsample.conv.'),
)

EFFICIENTFORMER_V2: Rules = _SHARED + (
    (r'^patch_embed\.0\.', 'stem.conv1.conv.'),
    (r'^patch_embed\.1\.', 'stem.conv1.bn.'),
    (r'^patch_embed\.3\.', 'stem.conv2.conv.'),
    (r'^patch_embed\.4\.', 'stem.conv2.bn.'),
    (r'\.downsample\.(?:proj|conv)\.', '.downsample.conv.conv.'),
    (r'\.downsample\.(?:norm|bn)\.', '.downsample.conv.bn.'),
    (r'\.mlp\.(fc1|mid|fc2)\.', r'.mlp.\1.conv.'),
    (r'\.mlp\.norm([12])\.', r'.mlp.fc\1.bn.'),
    (r'\.mlp\.mid_norm\.', '.mlp.mid.bn.'),
    (r'\.(stride_conv|q|k|v|v_local|q\.proj)\.0\.', r'.\1.conv.'),
    (r'\.(stride_conv|q|k|v|v_local|q\.proj)\.1\.', r'.\1.bn.'),
    (r'\.q\.local\.0\.', '.q.local.'),
    (r'\.(token_mixer|attn)\.proj\.1\.', r'.\1.proj.conv.'),
    (r'\.(token_mixer|attn)\.proj\.2\.', r'.\1.proj.bn.'),
)

# wrappers put their own name in front of or between the module's: DistributedDataParallel and EMA, torch.compile
_WRAPPERS = re.compile(r'(?<![^.])(?:module|_orig_mod)\.')
_UNUSED = re.compile(r'(?:^(?:head|head_dist|dist_head|norm)\.|(?:^|\.)attention_bias_idxs(?:_seg)?$)')


def unwrapped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the names that wrappers (``module.``, ``_orig_mod.``) add to its keys."""
    return {_WRAPPERS.sub('', key): value for key, value in state_dict.items()}


def is_original(keys: Iterable[str]) -> bool:
    """Whether a backbone's keys are the original code's."""
    return any(key.startswith(('patch_embed.', 'network.')) for key in keys)


def split_unused(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Sets apart what a backbone's file holds and no segmenter uses: the classifier's heads and last norm, the index
    buffers of the attention bias (they are computed), and the table that ``attention_biases_seg`` replaces.

    Returns:
        The rest, and the keys set apart.
    """
    unused = [
        key
        for key in state_dict
        if _UNUSED.search(key) or (key.endswith('.attention_biases') and f'{key}_seg' in state_dict)
    ]
    return {key: value for key, value in state_dict.items() if key not in set(unused)}, unused


def to_ours(state_dict: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """A backbone's state dict under our names.

    Args:
        state_dict: keys without prefix, under the original's names or already under ours.
        rules: :data:`EFFICIENTFORMER` or :data:`EFFICIENTFORMER_V2`; patterns applied in order, every one of them.

    Returns:
        A new dict over the same tensors (layer scales flattened to one axis); keys that no rule knows stay as they are.
    """
    if not is_original(state_dict):
        return dict(state_dict)
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value.flatten() if key.endswith('.gamma') else value
    return renamed
