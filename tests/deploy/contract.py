"""What every runtime promises. A subclass names the runtime and inherits the tests; full-size L1 is in the slow
tier."""

import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TRAINING

from effseg import deploy
from effseg.deploy import backends, parity, quantize
from effseg.deploy.reference import Reference
from effseg.deploy.spec import beside
from effseg.errors import ArtifactError, ConfigError, DataError, MissingRuntimeError, ParityError

from .conftest import need, spec_of

WITHOUT_TORCH = """
import sys
import numpy as np
from effseg import deploy
artifact = deploy.load(sys.argv[1])
np.save(sys.argv[2], artifact(np.load(sys.argv[3])))
"""


class BackendContract:
    runtime: str
    runtime_module: str  # what running a file imports
    needs_torch = False  # whether the runtime itself imports torch
    accelerators: frozenset[str] = frozenset()  # that are asked what they would leave
    slow_int8 = False  # whether int8 takes minutes to convert
    refused: str | None = None  # a precision it has not
    instead_of_int8: str  # of a runtime without

    @pytest.fixture(scope='class', params=[('logits', 'fp32'), ('labels', 'int8')], ids='-'.join)
    def exported(self, request, tmp_path_factory, model, fused, images):
        need(self.runtime)
        output, precision = request.param
        if precision not in backends.backend(self.runtime).PRECISIONS:
            precision = self.instead_of_int8
        path = tmp_path_factory.mktemp(self.runtime) / f'{output}{backends.SUFFIXES[self.runtime]}'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                quantize, 'SHARES', ()
            )  # one attempt: a network without training has labels on the edge everywhere
            spec = spec_of(self.runtime, output, precision)
            return deploy.export(model, fused, spec, path, images, images, keep_inaccurate=True)

    @pytest.fixture
    def copied(self, exported, tmp_path) -> Path:
        """The artifact and its spec, to be corrupted."""
        for file in (exported.path, beside(exported.path)):
            shutil.copy(file, tmp_path / file.name)
        return tmp_path / exported.path.name

    def test_export_leaves_the_artifact_and_its_spec(self, exported):
        assert {file.name for file in exported.path.parent.iterdir()} == {
            exported.path.name,
            beside(exported.path).name,
        }
        assert (
            exported.parity.images == 6
            and exported.parity.agreement >= parity.THRESHOLDS[exported.spec.precision].agreement
        )
        assert exported.megabytes > 0.01

    def declared(self, path: Path) -> list[tuple]:
        """Name, dtype and shape of the file's input and its output, as the runtime reads them."""
        raise NotImplementedError

    def test_its_spec_names_what_goes_in_and_what_comes_out(self, exported):
        spec = json.loads(beside(exported.path).read_text())
        ports = [(port['name'], port['dtype'], tuple(port['shape'])) for port in (*spec['inputs'], *spec['outputs'])]
        assert ports == self.declared(exported.path)
        assert [port['range'] for port in spec['outputs']] == [[0, 2] if spec['output'] == 'labels' else None]

    def test_everything_is_delegated(self, exported):
        assert exported.delegation.delegates == 1 and not exported.delegation.left, exported.delegation
        if exported.spec.precision == 'fp32':
            assert set(exported.delegation.elsewhere) == self.accelerators
        assert not any(exported.delegation.elsewhere.values()), exported.delegation

    def test_loaded_artifact_equals_torch(self, exported, model, images):
        artifact = deploy.load(exported.path)
        assert artifact.spec == exported.spec
        reference = Reference(model, exported.spec, images[:2])
        for number, image in enumerate(images[:2]):
            expected = reference.labels[number] if exported.spec.output == 'labels' else reference.logits(number)
            result = artifact(image)
            assert result.shape == exported.spec.result_shape == expected.shape
            if exported.spec.output == 'labels':
                assert (
                    result.dtype == np.int32
                    and (result == expected).mean() >= parity.THRESHOLDS[exported.spec.precision].agreement
                )
            else:
                np.testing.assert_allclose(
                    result, expected, atol=parity.THRESHOLDS['fp32'].difference * np.abs(expected).max()
                )

    def test_runs_without_torch_and_mmsegmentation(self, exported, images, tmp_path, without):
        if self.needs_torch:
            pytest.skip(f'{self.runtime} has its Python runtime built on torch')
        np.save(tmp_path / 'image.npy', images[0])
        done = without(TRAINING, '-c', WITHOUT_TORCH, exported.path, 'result.npy', 'image.npy')
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(tmp_path / 'result.npy'), deploy.load(exported.path)(images[0]))

    def test_another_network_is_refused_and_the_old_file_stays(
        self, exported, model, fused, images, copied, monkeypatch
    ):
        before = copied.read_bytes()
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.decode_head.conv_seg.weight.copy_(model.decode_head.conv_seg.weight.flip(0))
            other.decode_head.conv_seg.bias.copy_(model.decode_head.conv_seg.bias.flip(0))
        monkeypatch.setattr(backends.backend(self.runtime), 'export', _copy_of(exported))
        with pytest.raises(ParityError, match='same label at'):
            deploy.export(other, fused, exported.spec, copied, images, images)
        assert copied.read_bytes() == before
        assert len(list(copied.parent.iterdir())) == 2

    @pytest.mark.parametrize(
        'change, error, message',
        [
            (dict(path='model.bin'), ConfigError, 'must end in'),
            (dict(images=[]), DataError, 'no image to compare'),
            (dict(images=[np.zeros((8, 8, 3), np.uint8)]), DataError, 'was expected'),
        ],
    )
    def test_refuses_what_it_cannot_do(self, model, fused, images, tmp_path, change, error, message):
        spec = spec_of(self.runtime)
        path = tmp_path / change.get('path', f'model{backends.SUFFIXES[self.runtime]}')
        with pytest.raises(error, match=message):
            deploy.export(model, fused, spec, path, change.get('images', images))
        assert not list(tmp_path.iterdir())

    def test_deletes_no_folder_of_the_users(self, model, fused, images, tmp_path):
        path = tmp_path / f'model{backends.SUFFIXES[self.runtime]}'
        path.mkdir()
        (path / 'thesis.tex').write_text('all of it')
        with pytest.raises(ConfigError, match='is a folder'):
            deploy.export(model, fused, spec_of(self.runtime), path, images)
        assert (path / 'thesis.tex').read_text() == 'all of it'

    def test_refuses_a_precision_it_has_not(self, model, fused, images, tmp_path):
        if self.refused is None:
            assert set(backends.backend(self.runtime).PRECISIONS) == {'fp32', 'fp16', 'int8'}
            return
        with pytest.raises(ConfigError, match=f'{self.refused} does not exist for {self.runtime}'):
            deploy.export(model, fused, spec_of(self.runtime, precision=self.refused), tmp_path / 'model', images)

    def test_image_of_another_shape_or_type_is_refused(self, exported):
        artifact = deploy.load(exported.path)
        for image in (np.zeros((32, 32, 3), np.uint8), np.zeros(exported.spec.image_shape, np.float32), [1, 2, 3]):
            with pytest.raises(DataError, match='takes a uint8 RGB array'):
                artifact(image)

    @pytest.mark.parametrize('with_spec', [True, False])
    def test_cut_artifact_is_refused(self, copied, with_spec):
        copied.write_bytes(copied.read_bytes()[: copied.stat().st_size // 2])
        if not with_spec:
            beside(copied).unlink()
        with pytest.raises(ArtifactError, match='cut'):
            deploy.load(copied)

    def test_foreign_file_is_refused(self, copied):
        beside(copied).unlink()
        copied.write_bytes(b'not a network' * 100)
        with pytest.raises(ArtifactError, match='cannot read'):
            deploy.load(copied)

    def test_a_flipped_bit_is_noticed_without_the_spec_beside_it(self, copied):
        beside(copied).unlink()
        content = copied.read_bytes()
        for number in np.random.default_rng(0).integers(0, 8 * len(content), 40):
            flipped = bytearray(content)
            flipped[number // 8] ^= 1 << number % 8
            copied.write_bytes(flipped)
            with pytest.raises(ArtifactError, match='corrupted'):
                deploy.load(copied)

    def test_a_digest_that_was_lost_is_noticed(self, copied):
        beside(copied).unlink()
        copied.write_bytes(copied.read_bytes().replace(b'content_sha256', b'content_sha257'))
        with pytest.raises(ArtifactError, match='has lost the digest'):
            deploy.load(copied)

    def test_spec_of_another_file_is_refused(self, copied):
        beside(copied).write_text(beside(copied).read_text().replace('"class 1"', '"class one"'))
        with pytest.raises(ArtifactError, match='contradict'):
            deploy.load(copied)

    def test_runs_without_the_spec_beside_it(self, copied, exported, images):
        beside(copied).unlink()
        np.testing.assert_array_equal(deploy.load(copied)(images[0]), deploy.load(exported.path)(images[0]))

    def test_missing_runtime_names_its_extra(self, copied, monkeypatch):
        monkeypatch.setitem(sys.modules, self.runtime_module, None)
        with pytest.raises(MissingRuntimeError, match=rf"pip install 'effseg\[{self.runtime}\]'"):
            deploy.load(copied)


def _copy_of(exported):
    def export(network, spec, path, images, floats=()):
        shutil.copy(exported.path, path)
        return exported.delegation

    return export
