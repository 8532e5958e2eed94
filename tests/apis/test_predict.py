"""Images, folders, videos and cameras become overlays, label maps and shares."""

import json
import os
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from networks import TINY
from PIL import Image

from effseg.apis import video
from effseg.apis.opening import check_classes
from effseg.apis.predict import find_images, output_names, predict
from effseg.errors import ArtifactError

from .test_user_errors import assert_refused

pytestmark = pytest.mark.usefixtures('scenes')
FRAMES = 4
needs_ffmpeg = pytest.mark.skipif(
    not shutil.which('ffmpeg') and not os.environ.get('CI'), reason='needs ffmpeg (apt-get install ffmpeg)'
)


@pytest.fixture
def clip(scenes, tmp_path):
    """The scenes as a video without sound, of odd height."""
    path = tmp_path / 'video.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 5, (72, 46))
    for number in range(FRAMES):
        writer.write(cv2.imread(str(scenes / 'images' / 'train' / f'{number:04d}.jpg'))[:46])
    writer.release()
    return path


def frames_of(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


@pytest.mark.parametrize('fused', [False, True], ids=['trained', 'fused'])
def test_a_folder(scenes, checkpoint, tmp_path, fused):
    done = predict(TINY, str(checkpoint), [str(scenes / 'images' / 'val')], str(tmp_path), fused=fused)
    assert done.images == 2 and [path.name for path in done.overlays] == ['0000_overlay.jpg', '0001_overlay.jpg']
    labels = Image.open(tmp_path / '0000_labels.png')
    assert labels.mode == 'P' and labels.size == (72, 48) and labels.getpalette()[:3] == [110, 180, 230]
    shares = json.loads(done.shares.read_text())[str(scenes / 'images' / 'val' / '0000.jpg')]
    counts = np.bincount(np.asarray(labels).ravel(), minlength=8)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and shares['sky'] == pytest.approx(
        counts[0] / counts.sum(), abs=1e-6
    )


@pytest.mark.parametrize('fused', [False, True], ids=['trained', 'fused'])
def test_what_the_model_is_not_sure_of_is_unknown(scenes, checkpoint, tmp_path, fused):
    from mmseg.apis import inference_model

    import effseg

    source = scenes / 'images' / 'val' / '0000.jpg'
    image = np.asarray(Image.open(source))
    sample = inference_model(effseg.open(TINY, str(checkpoint)).trained, np.ascontiguousarray(image[..., ::-1]))
    likely = sample.seg_logits.data.softmax(0).amax(0).numpy()
    below = float(np.median(likely))
    predict(TINY, str(checkpoint), [str(source)], str(tmp_path), fused=fused, unknown_below=below)
    labels = np.asarray(Image.open(tmp_path / '0000_labels.png'))
    sure = np.abs(likely - below) > 1e-4
    np.testing.assert_array_equal((labels == 255)[sure], (likely < below)[sure])
    known = sure & (labels != 255)
    assert (labels == sample.pred_sem_seg.data[0].numpy())[known].mean() > 0.99
    shares = json.loads((tmp_path / 'shares.json').read_text())[str(source)]
    assert shares['unknown'] == pytest.approx((labels == 255).mean(), abs=1e-6) and 0.4 < shares['unknown'] < 0.6
    difference = np.abs(np.asarray(Image.open(tmp_path / '0000_overlay.jpg')).astype(int) - image).mean(2)
    assert difference[labels == 255].mean() < 0.5 * difference[labels != 255].mean()


@pytest.mark.parametrize('bound', ['0', '1', '-3', '50', 'nan'])
def test_a_bound_that_is_no_probability_is_one_line(tool, checkpoint, scenes, tmp_path, bound):
    arguments = [TINY, checkpoint, scenes / 'images' / 'val', '--out-dir', tmp_path / 'out', '--unknown-below', bound]
    assert_refused(tool('predict', *arguments), 'must lie between 0 and 1')


def test_an_overlay_without_opacity_is_the_image(scenes, checkpoint, tmp_path):
    source = scenes / 'images' / 'val' / '0000.jpg'
    predict(TINY, str(checkpoint), [str(source)], str(tmp_path), opacity=0.0)
    difference = np.asarray(Image.open(tmp_path / '0000_overlay.jpg')).astype(int) - np.asarray(Image.open(source))
    assert np.abs(difference).mean() < 3  # JPEG, twice


def test_images_of_one_name_do_not_replace_each_other(tmp_path):
    files = [tmp_path / name for name in ('a/x.jpg', 'b/x.jpg', 'a/x.png', 'y.jpg')]
    names = output_names(files)
    assert len(set(names.values())) == 4 and names[files[3]] == 'y'


def test_a_video(checkpoint, clip, tmp_path):
    done = predict(TINY, str(checkpoint), [str(clip)], str(tmp_path / 'out'), frame_labels=True)
    assert done.images == FRAMES and done.overlays == [tmp_path / 'out' / 'video_overlay.mp4']
    frames = frames_of(done.overlays[0])
    assert len(frames) == FRAMES and frames[0].shape[1] == 72
    assert len(list((tmp_path / 'out' / 'video_labels').glob('*.png'))) == FRAMES
    assert sum(json.loads(done.shares.read_text())[str(clip)].values()) == pytest.approx(1, abs=1e-5)
    assert not list((tmp_path / 'out').glob('.*'))


@needs_ffmpeg
@pytest.mark.parametrize('suffix, codec', [('.mp4', 'aac'), ('.avi', 'pcm_s16le')])
def test_the_sound_of_a_video_stays_as_it_is(checkpoint, clip, tmp_path, suffix, codec):
    source = tmp_path / f'loud{suffix}'
    ffmpeg(
        '-i',
        clip,
        '-f',
        'lavfi',
        '-i',
        'sine=frequency=440:duration=0.8',
        '-c:v',
        'mpeg4',
        '-c:a',
        codec,
        '-map',
        '0:v',
        '-map',
        '1:a',
        source,
    )
    done = predict(TINY, str(checkpoint), [str(source)], str(tmp_path / 'out'))
    before, after = (
        ffmpeg('-i', path, '-map', '0:a', '-c', 'copy', '-f', 'md5', '-') for path in (source, done.overlays[0])
    )
    assert before.startswith('MD5=') and before == after
    assert len(frames_of(done.overlays[0])) == FRAMES


def test_what_was_written_is_not_labelled_by_the_next_call(scenes, clip, checkpoint, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for file in (scenes / 'images/val/0000.jpg', clip):
        shutil.copy(file, photos)
    for _ in range(2):
        done = predict(TINY, str(checkpoint), [str(photos)], str(photos), frames=1, frame_labels=True)
        assert [path.name for path in done.overlays] == ['0000_overlay.jpg', 'video_overlay.mp4']


@needs_ffmpeg
def test_the_sound_and_the_label_maps_end_with_the_frames(checkpoint, clip, tmp_path):
    loud = tmp_path / 'loud.mp4'
    ffmpeg('-i', clip, '-f', 'lavfi', '-i', 'sine=duration=0.8', '-c:v', 'copy', '-c:a', 'aac', loud)
    for frames in (3, 2):
        done = predict(TINY, str(checkpoint), [str(loud)], str(tmp_path / 'out'), frames=frames, frame_labels=True)
    assert len(list((tmp_path / 'out/loud_labels').iterdir())) == 2 == len(frames_of(done.overlays[0]))
    sound = ffmpeg('-i', done.overlays[0], '-map', '0:a', '-f', 's16le', '-ac', '1', '-ar', '1000', tmp_path / 'sound')
    assert not sound and (tmp_path / 'sound').stat().st_size <= 2 * 500  # of 0.4 seconds, in blocks


def ffmpeg(*arguments):
    return subprocess.run(
        ['ffmpeg', '-y', '-loglevel', 'error', *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def test_without_ffmpeg_the_video_has_no_sound_and_it_is_said(checkpoint, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video.shutil, 'which', lambda name: None)
    done = predict(TINY, str(checkpoint), [str(clip)], str(tmp_path / 'out'), frames=2)
    assert 'no sound' in capsys.readouterr().out
    assert done.images == 2 and len(frames_of(done.overlays[0])) == 2


def test_a_camera_runs_until_it_is_interrupted_and_keeps_its_video(checkpoint, clip, tmp_path, monkeypatch):
    opened, capture = [], cv2.VideoCapture
    monkeypatch.setattr(
        video.cv2,
        'VideoCapture',
        lambda source: capture(source) if source != 3 else opened.append(source) or capture(str(clip)),
    )
    monkeypatch.setattr(video, '_frames', lambda source, frames=video._frames: interrupted(frames(source)))
    done = predict(TINY, str(checkpoint), ['3'], str(tmp_path / 'out'))
    assert opened == [3] and done.images == 2 and done.overlays[0].name == 'camera3_overlay.mp4'
    assert len(frames_of(done.overlays[0])) == 2


def interrupted(frames):
    yield next(frames)
    yield next(frames)
    raise KeyboardInterrupt


def test_the_command_counts_images_per_second(tool, scenes, checkpoint, tmp_path):
    outcome = tool('predict', TINY, checkpoint, scenes / 'images' / 'val', '--out-dir', tmp_path)
    assert outcome.status == 0 and '2 images in' in outcome.out and 'images/s' in outcome.out


def test_options_of_videos_are_refused_of_images(tool, scenes, checkpoint, tmp_path):
    for option in (['--frames', 2], ['--frame-labels'], ['--show']):
        outcome = tool('predict', TINY, checkpoint, scenes / 'images' / 'val', '--out-dir', tmp_path / 'out', *option)
        assert outcome.status == 2 and 'for videos and cameras' in outcome.err and not (tmp_path / 'out').exists()


def test_an_empty_folder(tool, checkpoint, tmp_path):
    assert_refused(tool('predict', TINY, checkpoint, tmp_path, '--out-dir', tmp_path / 'out'), tmp_path, '.jpg', '.mp4')


def test_a_camera_that_is_not_there(tool, checkpoint, tmp_path):
    assert 'camera 97' in tool('predict', TINY, checkpoint, '97', '--out-dir', tmp_path).err


def test_a_file_that_is_no_video(tool, checkpoint, tmp_path):
    (tmp_path / 'text.mp4').write_text('nothing to see')
    assert (
        'text.mp4 cannot be read as a video'
        in tool('predict', TINY, checkpoint, tmp_path / 'text.mp4', '--out-dir', tmp_path).err
    )


def test_an_artifact_of_other_classes():
    with pytest.raises(ArtifactError, match="2 classes and c.py 3 .*'b' where the config has 'x'"):
        check_classes(('a', 'b'), ('a', 'x', 'c'), 'm.onnx', 'c.py')


def test_files_of_others_are_not_replaced(tool, scenes, checkpoint, tmp_path):
    source = scenes / 'images' / 'val' / '0000.jpg'
    (tmp_path / 'a.jpg').write_bytes(source.read_bytes())
    (tmp_path / 'a_labels.png').write_bytes(b'the true label map')
    assert_refused(
        tool('predict', TINY, checkpoint, tmp_path / 'a.jpg', '--out-dir', tmp_path),
        'a_labels.png',
        'not written by effseg',
    )
    assert (tmp_path / 'a_labels.png').read_bytes() == b'the true label map'
    (tmp_path / 'a_labels.png').unlink()
    for _ in range(2):  # its own files it replaces
        predict(TINY, str(checkpoint), [str(tmp_path / 'a.jpg')], str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 5


def test_true_label_maps_are_not_replaced_by_predicted_ones(tool, scenes, checkpoint, tmp_path):
    shutil.copytree(scenes, tmp_path / 'data')
    truth = tmp_path / 'data' / 'annotations' / 'val'
    before = {path.name: path.read_bytes() for path in truth.iterdir()}
    options = ('--cfg-options', f'data_root={tmp_path / "data"}')
    outcome = tool('test', TINY, checkpoint, '--work-dir', tmp_path / 'work', '--out', truth, *options)
    assert outcome.status == 2 and outcome.err.splitlines()[-1].startswith('error: ') and '0000.png' in outcome.err
    assert {path.name: path.read_bytes() for path in truth.iterdir()} == before


def test_a_path_that_looks_like_an_address_is_a_file(checkpoint, clip, tmp_path, monkeypatch):
    folder = tmp_path / 'http:' / '127.0.0.1:9'
    folder.mkdir(parents=True)
    shutil.copy(clip, folder / 'x.mp4')
    shutil.copy(clip, tmp_path / 'a:b.mp4')
    monkeypatch.chdir(tmp_path)
    done = predict(TINY, str(checkpoint), ['http:/127.0.0.1:9/x.mp4', 'a:b.mp4'], 'rtmp:/out', frames=2)
    assert done.images == 4 and [path.name for path in done.overlays] == ['x_overlay.mp4', 'a:b_overlay.mp4']
    assert all(len(frames_of(path)) == 2 for path in done.overlays)


def test_hidden_files_of_a_folder_are_passed_over(tmp_path):
    for name in ('1.JPG', '._1.JPG', '.thumbnails/1.jpg', '__MACOSX/1.jpg', 'more/2.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    assert find_images([str(tmp_path)]) == [tmp_path / '1.JPG', tmp_path / 'more' / '2.png']
    assert find_images([str(tmp_path / '._1.JPG')]) == [tmp_path / '._1.JPG']


def test_a_pipe_in_a_folder_is_no_image(checkpoint, scenes, tmp_path):
    shutil.copy(scenes / 'images' / 'val' / '0000.jpg', tmp_path)
    os.mkfifo(tmp_path / 'a.png')
    assert predict(TINY, str(checkpoint), [str(tmp_path)], str(tmp_path / 'out')).images == 1


@pytest.mark.parametrize('source', ['\u00b2', '9' * 5000, '99999999999'])
def test_digits_that_are_no_camera_are_one_error(tool, checkpoint, tmp_path, source):
    outcome = tool('predict', TINY, checkpoint, source, '--out-dir', tmp_path)
    assert outcome.status == 2 and 'Traceback' not in outcome.err, outcome.err[-300:]
