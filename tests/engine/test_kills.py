"""A training may be killed at any moment: it resumes, loses at most one save interval, and ends with the weights of the one that was left alone."""
import shutil
import signal
import time
from pathlib import Path

import pytest

from .kills import INTERVAL, Chain, kill_all_the_way, processes, same, train_in_child, weights

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
@pytest.mark.parametrize('options, kills', [
    ({'default_hooks.checkpoint.max_keep_ckpts': 1}, 34),
    ({'default_hooks.checkpoint.max_keep_ckpts': 3}, 33),
    ({'default_hooks.checkpoint.max_keep_ckpts': 1, 'default_hooks.checkpoint.save_best': None, 'train_dataloader.num_workers': 4}, 33)])
def test_a_hundred_kills(scenes, tmp_path, undisturbed, options, kills):
    chains = kill_all_the_way(tmp_path, scenes, {**OPTIONS, **options}, kills, in_save=14, seed=kills)
    check(chains, undisturbed)
    print(f'{options}: {kills} kills, {sum(chain.in_save for chain in chains)} of them while saving, {len(chains)} trainings, at most '
          f'{max(max(chain.lost, default=0) for chain in chains)} iterations lost')


@pytest.mark.medium
def test_sigterm_saves_first_and_a_moved_folder_resumes(scenes, tmp_path, undisturbed):
    chain = Chain(tmp_path / 'run', scenes, {**OPTIONS, 'default_hooks.checkpoint.interval': 1000, 'train_dataloader.num_workers': 2})
    process = processes().Process(target=train_in_child, args=(str(chain.work_dir), str(scenes), False, chain.options, None))
    process.start()
    while process.is_alive() and len(chain.begun()) < 3:
        time.sleep(.01)
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM, chain.log()
    saved = chain.begun()[-1] + 1
    assert (chain.work_dir / f'iter_{saved}.pth').is_file()
    moved = Chain(tmp_path / 'moved', scenes, chain.options)
    shutil.move(chain.work_dir, moved.work_dir)
    assert moved.run() == 0, moved.log()
    assert moved.begun()[0] == saved
    assert same(weights(moved.work_dir, ITERATIONS), undisturbed)
