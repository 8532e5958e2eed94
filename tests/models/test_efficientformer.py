import pytest
import torch

from effseg.models import EfficientFormer

from .contract import BackboneContract, image, randomised, smallest_by_default


class TestEfficientFormer(BackboneContract):
    backbone = EfficientFormer
    archs = ('l1', 'l3', 'l7')
    timm_name = 'efficientformer_{arch}'
    published = {'l1': (12.3, 1.3), 'l3': (31.3, 3.9), 'l7': (82.1, 10.2)}
    tiny = dict(depths=(1, 1, 1, 2), embed_dims=(8, 8, 16, 16), num_vit=1)

    @pytest.fixture(params=archs)
    def arch(self, request):
        return request.param

    @pytest.fixture(params=smallest_by_default(archs))
    def arch_run(self, request):
        return request.param

    @torch.no_grad()
    def test_output_norms_are_one_group_norms_of_the_trunk(self):
        model = randomised(EfficientFormer(self.tiny))
        bare = EfficientFormer(self.tiny, out_norm=None).double().eval()
        bare.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith('norm')})
        for index, (got, x) in enumerate(zip(model(image(64, 96)), bare(image(64, 96)))):
            norm = getattr(model, f'norm{index}')
            x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(got, x * norm.weight.reshape(-1, 1, 1) + norm.bias.reshape(-1, 1, 1))

    def test_stem_keeps_relu(self):
        assert type(EfficientFormer(self.tiny, act='HardSwish').stem.act1) is torch.nn.ReLU

    def test_all_blocks_may_attend_and_none(self):
        for num_vit in (0, 2):
            model = EfficientFormer(dict(self.tiny, num_vit=num_vit)).eval()
            assert model(torch.zeros(1, 3, 40, 72))[-1].shape == (1, 16, 2, 3)
