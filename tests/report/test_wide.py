"""A page of 150 classes and every kind of candidate, in a browser; the numbers are made up, the page is the one that
reports write."""

from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, complaints, overflow, resize, wait_for
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from effseg.report import page
from effseg.report.candidates import Candidate, Row
from effseg.report.curve import Curve
from effseg.report.images import layers
from effseg.report.recorder import Scene

FILES = ('best.pth', 'model.onnx', 'model.pte', 'model.tflite', 'model_int8.onnx')


@pytest.fixture(scope='module')
def classes():
    from mmseg.datasets import ADE20KDataset

    return ADE20KDataset.METAINFO


@pytest.fixture(scope='module')
def html(classes, tmp_path_factory):
    from ade20k import write_ade20k

    folder = tmp_path_factory.mktemp('wide')
    names, palette = list(classes['classes']), classes['palette']
    rng = np.random.default_rng(0)
    confusion = np.diag(rng.integers(0, 10**6, 150)) + rng.integers(0, 10**4, (150, 150))
    confusion[-3:] = confusion[:, -3:] = 0
    candidates = [
        Candidate(FILES[0], Path(FILES[0])),
        Candidate(f'{FILES[0]}, fused', Path(FILES[0]), fused=True),
        *(Candidate(file, Path(file)) for file in FILES[1:]),
    ]
    rows = [
        Row(
            candidate,
            dict(mIoU=38.9 - number / 100, aAcc=79.0, mAcc=50.0),
            100.0 - number / 1000,
            400.0 / (number + 1),
            60.0,
            15_590_000 if number < 2 else None,
            (28.1, 18.8)[number] if number < 2 else None,
            (512, 512),
            64 * f'{number}',
            ['40 Conv2d'],
            names,
            palette,
        )
        for number, candidate in enumerate(candidates)
    ]
    root = write_ade20k(folder / 'data', train=1, val=2)
    image = next((root / 'images' / 'validation').iterdir())
    labels = root / 'annotations' / 'validation' / f'{image.stem}.png'
    scene = layers(
        Scene(image, labels, labels, 0.5, 0.9), [*names, 'no class'], np.array([*palette, (0, 0, 0)], dtype=np.uint8)
    )
    content = page.Content(
        config='configs/fpn_effformer_l1_ade20k.py',
        data='data/ade',
        images=2000,
        classes=names,
        rows=rows,
        confusion=confusion,
        confusions={row.name: confusion for row in rows},
        worst=[scene],
        best=[scene],
        curve=Curve([(step, 4 / (1 + step)) for step in range(40)], [(20, 9.0), (39, 38.9)]),
        environment={'processor': 'a processor'},
        command='python tools/report.py',
        setting={},
        options={},
    )
    page.write(content, folder / 'report.html')
    return folder / 'report.html'


@pytest.fixture(scope='module')
def opened(html, browser):
    resize(browser)
    complaints(browser)
    browser.get(html.as_uri())
    drawn = (
        'return document.querySelectorAll("[data-figure=bars] .textpoint").length == 150 && '
        'document.querySelectorAll("[data-figure=confusion] .ytick text").length > 0'
    )
    wait_for(browser, lambda window: window.execute_script(drawn))
    assert not complaints(browser)
    return browser


def test_every_candidate_has_its_row(opened):
    rows = opened.execute_script(
        'return [...document.querySelectorAll("#compare tr")].map(r => [...r.children].map(c => c.textContent))'
    )
    assert [row[0] for row in rows] == ['candidate', 'best.pth', 'best.pth, fused', *FILES[1:]]
    assert [row[1] for row in rows[1:]] == ['38.90', '38.89', '38.88', '38.87', '38.86', '38.85']
    assert [row[5] for row in rows[1:4]] == ['1.00×', '2.00×', '3.00×'] and [row[7] for row in rows[1:4]] == [
        '28.1',
        '18.8',
        '',
    ]


def test_every_class_has_a_bar_of_its_own_line(opened, classes):
    ticks = opened.execute_script(
        'return [...document.querySelectorAll("[data-figure=bars] .ytick text")].map(t => [t.textContent, '
        't.getBoundingClientRect().y])'
    )
    assert sorted(name.strip() for name, _ in ticks) == sorted(name.strip() for name in classes['classes'])
    places = sorted(place for _, place in ticks)
    assert (
        min(np.diff(places)) > 18
        and opened.execute_script('return document.querySelectorAll("[data-figure=bars] .textpoint").length') == 150
    )


def test_the_worst_pairs_come_before_the_matrix(opened):
    pairs = opened.find_elements(By.CSS_SELECTOR, '#confusion tbody tr, #confusion table tr')
    assert len(pairs) == page.WORST_PAIRS + 1
    matrix = opened.find_element(By.CSS_SELECTOR, '[data-figure=confusion]')
    assert pairs[-1].rect['y'] < matrix.rect['y']


def test_dragging_zooms_into_the_matrix_until_each_class_is_named(opened):
    shown = 'return [...document.querySelectorAll("[data-figure=confusion] .ytick text")].map(t => t.textContent)'
    ratio = (
        'const {range} = document.querySelector("[data-figure=confusion]").layout.yaxis; '
        'return Math.abs(range[1] - range[0])'
    )
    before, wide = opened.execute_script(shown), opened.execute_script(ratio)
    area = opened.find_element(By.CSS_SELECTOR, '[data-figure=confusion] .nsewdrag')
    opened.execute_script('arguments[0].scrollIntoView({block: "center"})', area)
    ActionChains(opened).move_to_element_with_offset(area, -60, -60).click_and_hold().move_by_offset(
        50, 50
    ).move_by_offset(50, 50).release().perform()
    narrow = wait_for(opened, lambda window: (found := window.execute_script(ratio)) < wide and found)
    names = opened.execute_script(shown)
    assert len(before) < 150 <= round(wide) and narrow < wide / 3
    assert abs(len(names) - narrow) <= 2


def test_it_fits_a_phone(html, browser):
    resize(browser, PHONE)
    browser.get(html.as_uri())
    assert overflow(browser) <= 0 and not complaints(browser)
