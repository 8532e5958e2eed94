"""What every backbone of the family promises. A subclass names the type, its archs and timm's, and inherits the
tests."""

import pytest
import timm
import torch
from original import Original, random_weights
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from effseg.errors import ConfigError

EXACT = dict(rtol=1e-9, atol=1e-9)


def randomised(model: nn.Module) -> nn.Module:
    """The model in fp64 and eval mode, every parameter and statistic random, so that none can be left unused
    unnoticed."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.double().eval().state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if 'running_var' in key or value.dim() == 1 and key.endswith('weight'):
            noise = noise.abs() * 0.3 + 0.5
        elif key.endswith('gamma'):
            noise *= 0.2
        elif 'talking_head2.bias' in key:  # adds up over all keys
            noise *= 0.01
        elif value.dim() > 1 and 'attention_biases' not in key:
            noise /= value[0].numel() ** 0.5
        value.copy_(noise)
    return model


def image(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def smallest_by_default(archs: tuple[str, ...]) -> list:
    """Parameters of a fixture: the first of the archs, and the others in the slow tier."""
    return [archs[0], *(pytest.param(arch, marks=pytest.mark.slow) for arch in archs[1:])]


class BackboneContract:
    backbone: type[nn.Module]
    archs: tuple[str, ...]  # smallest first
    timm_name: str  # with {arch}
    published: dict[
        str, tuple[float, float]
    ]  # arch: (parameters of the classifier in M, GMAC at 224), as the papers give them
    tiny: dict  # an arch to train in no time

    @pytest.fixture(scope='class')
    def small(self):
        return randomised(self.backbone(self.archs[0]))

    @pytest.fixture
    def by_arch(self, original_shapes):
        return {arch: original_shapes[arch] for arch in self.archs}

    def holding(self, weights, arch, **options):
        """The backbone with these weights, without the time that initialising it takes."""
        with torch.device('meta'):
            model = self.backbone(arch, **options)
        model.load_state_dict(weights, assign=True)
        return model.eval()

    @pytest.mark.medium
    @torch.no_grad()
    def test_equals_timm_at_224(self, arch_run):
        theirs = randomised(timm.create_model(self.timm_name.format(arch=arch_run)))
        ours = self.holding(
            {
                key: value
                for key, value in theirs.state_dict().items()
                if key.startswith(('stem.', 'stages.')) and not key.endswith('bias_idxs')
            },
            arch_run,
            out_norm=None,
        )
        x = image(224, 224)
        for got, expected in zip(ours(x), theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            torch.testing.assert_close(got, expected, **EXACT)

    def test_size_is_the_published_one(self, arch):
        with torch.device('meta'):
            model = self.backbone(arch, out_norm=None).eval()
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                model(torch.empty(1, 3, 224, 224))
        width = model.embed_dims[-1]
        classifier = 2 * (width + 1) * 1000 + 2 * width  # two heads and a norm
        parameters, macs = self.published[arch]
        assert (sum(p.numel() for p in model.parameters()) + classifier) / 1e6 == pytest.approx(parameters, rel=0.03)
        assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=0.04)

    @pytest.mark.medium
    @torch.no_grad()
    def test_equals_the_original_at_512(self, by_arch):
        arch = self.archs[0]
        weights = random_weights(by_arch[arch])
        ours = self.holding(weights, arch, resolution=16)
        x = image(512, 512)
        for got, expected in zip(ours(x), Original(weights)(x), strict=True):
            torch.testing.assert_close(got, expected, **EXACT)

    @pytest.mark.medium
    @torch.no_grad()
    def test_equals_the_original_at_other_sizes_with_its_bias_resize(self, arch_run, by_arch):
        weights = random_weights(by_arch[arch_run])
        ours = self.holding(weights, arch_run, resolution=16, bias_resize='matrix')
        x = image(64, 128)
        for got, expected in zip(ours(x), Original(weights)(x), strict=True):
            torch.testing.assert_close(got, expected, **EXACT)

    @torch.no_grad()
    @pytest.mark.parametrize('size', [(224, 224), (96, 64), (64, 160), (65, 97), (33, 31), (1, 1), (2, 500)])
    def test_strides_for_any_height_and_width(self, small, size):
        maps = small(image(*size))
        for index, (got, dim) in enumerate(zip(maps, small.embed_dims, strict=True)):
            stride = 2 ** (index + 2)
            assert got.shape == (1, dim, -(-size[0] // stride), -(-size[1] // stride))
            assert got.isfinite().all()

    @torch.no_grad()
    def test_one_image_in_a_batch_does_not_see_the_others(self, small):
        x = image(64, 96, batch=2)
        for both, alone in zip(small(x), small(x[1:])):
            torch.testing.assert_close(both[1:], alone, **EXACT)

    @torch.no_grad()
    def test_transposed_image_gives_transposed_maps(self):
        """Only if rows and columns are never mistaken for each other, in the bias above all."""
        model = self.backbone(self.archs[0], out_norm=None).double().eval()
        for key, value in randomised(model).state_dict().items():
            if value.dim() == 4:
                value.copy_((value + value.transpose(2, 3)) / 2)
            elif key.endswith('attention_biases'):
                side = round(value.shape[1] ** 0.5)
                table = value.unflatten(1, (side, side))
                value.copy_((table + table.transpose(1, 2)).flatten(1) / 2)
        x = image(192, 352)
        for got, expected in zip(model(x.transpose(2, 3)), model(x)):
            torch.testing.assert_close(got.transpose(2, 3), expected, **EXACT)

    @torch.no_grad()
    def test_last_map_depends_on_the_last_block(self, small):
        before = small(image(64, 64))
        gamma = small.stages[-1].blocks[-1].ls2.gamma
        kept = gamma.clone()
        gamma.add_(1.0)
        after = small(image(64, 64))
        gamma.copy_(kept)
        assert not torch.allclose(before[-1], after[-1])
        assert torch.equal(before[2], after[2])

    @torch.no_grad()
    def test_nothing_goes_stale(self, small):
        """New tables take effect at once, in eval mode, after a forward pass."""
        model = self.backbone(self.archs[0]).double().eval()
        model.load_state_dict(small.state_dict())
        before = model(image(64, 64))[-1]
        state = {
            key: value + 1 * ('attention_biases' in key) * torch.randn_like(value)
            if value.is_floating_point()
            else value
            for key, value in small.state_dict().items()
        }
        model.load_state_dict(state)
        assert not torch.allclose(model(image(64, 64))[-1], before)

    def test_out_indices_leave_out_what_is_not_needed(self):
        model = self.backbone(self.archs[0], out_indices=(1, 2))
        assert len(model.stages) == 3
        assert [m.shape[1] for m in model.eval()(torch.zeros(1, 3, 64, 64))] == list(model.embed_dims[1:3])

    def test_every_parameter_is_trained(self):
        model = self.backbone(self.tiny)
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    def test_train_and_eval_return_the_module(self):
        model = self.backbone(self.tiny)
        assert model.train() is model and model.training
        assert model.eval() is model and not model.training

    def test_norm_eval_keeps_the_statistics_and_trains_the_weights(self):
        def statistics(model):
            return [value.clone() for key, value in model.state_dict().items() if 'running' in key]

        for norm_eval in (True, False):
            model = self.backbone(self.tiny, norm_eval=norm_eval).train()
            before = statistics(model)
            sum(m.sum() for m in model(torch.randn(2, 3, 64, 64))).backward()
            same = [torch.equal(a, b) for a, b in zip(before, statistics(model))]
            assert all(same) if norm_eval else not any(same)
            assert all(p.grad is not None for p in model.stem.parameters())

    def test_frozen_stages(self):
        model = self.backbone(self.tiny, frozen_stages=2).train()
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        expected = {
            name for name, _ in model.named_parameters() if name.startswith(('stem.', 'stages.0.', 'stages.1.'))
        }
        assert frozen == expected
        assert not model.stages[1].training and model.stages[2].training
        assert not any(p.requires_grad for p in self.backbone(self.tiny, frozen_stages=0).stem.parameters())

    def test_checkpointing_changes_memory_alone(self):
        x = torch.randn(2, 3, 64, 64)
        gradients = []
        for with_cp in (False, True):
            torch.manual_seed(0)
            model = self.backbone(self.tiny, with_cp=with_cp).train()
            sum(m.square().mean() for m in model(x)).backward()
            gradients.append([p.grad for p in model.parameters()])
        for plain, recomputed in zip(*gradients, strict=True):
            torch.testing.assert_close(plain, recomputed)

    def test_stochastic_depth_drops_in_training_alone(self):
        model = self.backbone(self.tiny, drop_path_rate=0.9)
        with torch.no_grad():
            for key, value in model.state_dict().items():
                if key.endswith('gamma'):
                    value.fill_(1.0)
        x = torch.randn(2, 3, 64, 64)
        model.train()
        assert not torch.equal(model(x)[-1], model(x)[-1])
        model.eval()
        assert torch.equal(model(x)[-1], model(x)[-1])

    @pytest.mark.parametrize(
        'options, word',
        [
            (dict(arch='l9'), "'l9'"),
            (dict(act='Swish'), "'Swish'"),
            (dict(bias_resize='bicubic'), "'bicubic'"),
            (dict(resolution=0), 'resolution=0'),
            (dict(out_indices=(0, 4)), '(0, 4)'),
            (dict(out_indices=(2, 1)), '(2, 1)'),
            (dict(out_indices=()), '()'),
            (dict(frozen_stages=5), '5'),
            (dict(arch=dict(depths=(1, 1, 1, 1))), 'embed_dims'),
        ],
    )
    def test_a_wrong_value_is_named(self, options, word):
        with pytest.raises(ConfigError) as caught:
            self.backbone(**options)
        assert word in str(caught.value)

    def test_an_unknown_option_is_refused(self):
        with pytest.raises(TypeError, match='style'):
            self.backbone(self.tiny, style='pytorch')

    @pytest.mark.parametrize('act, layer', [('GELU', nn.GELU), ('HardSwish', nn.Hardswish), ('ReLU', nn.ReLU)])
    def test_activation(self, act, layer):
        found = {
            type(m)
            for m in self.backbone(self.tiny, act=act).stages.modules()
            if isinstance(m, (nn.GELU, nn.Hardswish, nn.ReLU))
        }
        assert found == {layer}

    def test_a_few_iterations_of_training(self):
        model = self.backbone(self.tiny).train()
        x, target = torch.randn(4, 3, 64, 64), torch.randn(4, 16, 2, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(12):
            loss = (model(x)[-1] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
