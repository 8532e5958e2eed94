"""A training may be killed at any moment: it resumes, loses at most one save interval, and ends with the weights of the
one that was left alone."""

import shutil
import signal
from pathlib import Path

import pytest
from networks import EPOCHS

from .kills import INTERVAL, Chain, kill_all_the_way, same, weights

ITERATIONS = 12
OPTIONS = {'train_cfg.max_iters': ITERATIONS, 'param_scheduler.0.end': ITERATIONS, 'train_cfg.val_interval': 4}


@pytest.fixture(scope='module')
def undisturbed(scenes, tmp_path_factory) -> dict:
    """The weights at the end of a training that nobody killed."""
    chain = Chain(tmp_path_factory.mktemp('undisturbed') / 'run', scenes, OPTIONS)
    assert chain.run() == 0, chain.log()
    return weights(chain.work_dir, ITERATIONS)


def check(chains, undisturbed):
    for chain in chains:
        assert max(chain.lost, default=0) <= INTERVAL, chain.lost
        assert same(weights(chain.work_dir, ITERATIONS), undisturbed)
        assert not list(Path(chain.work_dir).glob('*.partial'))


@pytest.mark.medium
def test_killed_three_times_it_ends_with_the_same_weights(scenes, tmp_path, undisturbed):
    options = {**OPTIONS, 'train_dataloader.num_workers': 2}
    check(kill_all_the_way(tmp_path, scenes, options, kills=3, in_save=2), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    'options, kills',
    [
        ({'default_hooks.checkpoint.max_keep_ckpts': 1}, 34),
        ({'default_hooks.checkpoint.max_keep_ckpts': 3}, 33),
        (
            {
                'default_hooks.checkpoint.max_keep_ckpts': 1,
                'default_hooks.checkpoint.save_best': None,
                'train_dataloader.num_workers': 4,
            },
            33,
        ),
    ],
)
def test_a_hundred_kills(scenes, tmp_path, undisturbed, options, kills):
    chains = kill_all_the_way(tmp_path, scenes, {**OPTIONS, **options}, kills, in_save=14, seed=kills)
    check(chains, undisturbed)
    print(
        f'{options}: {kills} kills, {sum(chain.in_save for chain in chains)} of them while saving, {len(chains)} '
        f'trainings, at most {max(max(chain.lost, default=0) for chain in chains)} iterations lost'
    )


@pytest.mark.medium
def test_sigterm_saves_first_and_a_moved_folder_resumes(scenes, tmp_path, undisturbed):
    chain = Chain(
        tmp_path / 'run',
        scenes,
        {**OPTIONS, 'default_hooks.checkpoint.interval': 1000, 'train_dataloader.num_workers': 2},
    )
    assert chain.stop(3) == 128 + signal.SIGTERM, chain.log()
    saved = chain.begun()[-1] + 1
    assert (chain.work_dir / f'iter_{saved}.pth').is_file()
    moved = Chain(tmp_path / 'moved', scenes, chain.options)
    shutil.move(chain.work_dir, moved.work_dir)
    assert moved.run() == 0, moved.log()
    assert moved.begun()[0] == saved
    assert same(weights(moved.work_dir, ITERATIONS), undisturbed)


@pytest.mark.medium
def test_sigterm_inside_an_epoch_saves_there_and_the_rest_of_it_follows(scenes, tmp_path):
    whole = Chain(tmp_path / 'whole', scenes, {}, EPOCHS)
    assert whole.run() == 0, whole.log()
    chain = Chain(tmp_path / 'run', scenes, {'train_dataloader.num_workers': 2}, EPOCHS)
    for iterations in (2, 3):
        assert chain.stop(iterations) == 128 + signal.SIGTERM, chain.log()
        assert 'stopped by SIGTERM' in chain.log()
    assert chain.run() == 0, chain.log()
    assert chain.begun() == whole.begun() == list(range(12)), chain.begun()
    assert same(weights(chain.work_dir, 'epoch_4.pth'), weights(whole.work_dir, 'epoch_4.pth'))
    assert sorted(path.name for path in chain.work_dir.glob('*.pth')) == sorted(
        path.name for path in whole.work_dir.glob('*.pth')
    )


@pytest.mark.medium
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_ctrl_c_and_a_closed_terminal_save_as_well(scenes, tmp_path, number):
    chain = Chain(tmp_path / 'run', scenes, {**OPTIONS, 'default_hooks.checkpoint.interval': 1000})
    assert chain.stop(1, number) == 128 + number, chain.log()
    saved = chain.begun()[-1] + 1
    assert f'stopped by {number.name} after iteration {saved}: saved as' in chain.log()
    assert (chain.work_dir / f'iter_{saved}.pth').is_file()
