"""The page about a run, in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.cli import main
from tfstream.errors import UsageError
from tfstream.lineage import figures

BATCH = 16
EVIL = "<img src=x onerror=alert(1)></script><script>document.title='broken'</script>"
NAMES = (
    "</script><script>window.broken=1</script>",
    "<img src=x onerror=window.broken=1>",
    "\"'><svg onload=window.broken=1>",
    "'\"--></style></title><script>window.broken=1</script>",
    '<a href="javascript:window.broken=1">&lt;b&gt; &amp; &quot;</a>',
    "<!--<script>",
    "<b>%{x} ${1} {{1}} \\u003c $x^2$</b>",
)
"""Each of them runs, or swallows what follows, where a page takes it for more than text."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Run:
    """Two attempts, the second of which began where the first had gone beyond; evil group names."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    table = pa.table({"g": rng.choice(["a", "b", EVIL], 300), "x": rng.normal(size=300)})
    pq.write_table(table, folder / "source.parquet")
    shards = tfstream.convert(folder / "source.parquet", folder / "shards", group_by=["g"])
    stream = shards.stream(batch_size=BATCH, features=["x"], label="x > 0")
    for initial, epochs in ((0, 2), (1, 3)):
        inputs = {"x": keras.Input((1,), name="x")}
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
        model.compile("sgd", "mse", jit_compile=False)
        callback = tfstream.LineageCallback(folder / "run", stream)
        model.fit(
            stream.dataset(),
            initial_epoch=initial,
            epochs=epochs,
            callbacks=[callback],
            shuffle=False,
            verbose=0,
        )
    return tfstream.open_run(folder / "run")


@pytest.fixture(scope="module")
def page(run: tfstream.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that the command line writes."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["report", str(run.folder), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window and without a network."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver on this machine; Debian's package chromium-driver has it")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for name in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        "disable-quic",
        "window-size=1100,1400",
    ):
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.mark.slow
def test_the_page_renders_and_a_click_opens_the_rows_of_a_step(
    browser: Any, page: Path, run: tfstream.Run
) -> None:
    """All figures are drawn, the console is empty, names are text, a click shows a step's rows."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    plots = browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")
    assert len(plots) == 6
    WebDriverWait(browser, 30).until(
        lambda _: all(plot.find_elements(By.CSS_SELECTOR, ".main-svg") for plot in plots)
    )
    assert browser.title == "Run run"
    assert EVIL in browser.find_element(By.TAG_NAME, "body").text
    assert not browser.find_elements(By.CSS_SELECTOR, "img[onerror]")
    opened = "details[open]"
    assert not browser.find_elements(By.CSS_SELECTOR, opened)
    # The last step of an epoch has few rows, so that its mix lies above the others.
    known = {e.get_attribute("id") for e in browser.find_elements(By.TAG_NAME, "details")}
    steps = run.seen["step"].to_pylist()
    place = next(i for i, step in enumerate(steps) if f"step-{step}" in known)
    point = plots[-1].find_elements(By.CSS_SELECTOR, ".scatterlayer .point")[place]
    ActionChains(browser).move_to_element(point).pause(0.2).click().perform()
    WebDriverWait(browser, 30).until(lambda _: browser.find_elements(By.CSS_SELECTOR, opened))
    (details,) = browser.find_elements(By.CSS_SELECTOR, opened)
    assert details.get_attribute("id") == f"step-{steps[place]}"
    lines = details.find_elements(By.TAG_NAME, "tr")
    expected = run.rows(step=steps[place]).to_pylist()
    assert len(lines) == 1 + len(expected)
    cells = [cell.text for cell in lines[1].find_elements(By.TAG_NAME, "td")]
    assert cells == [str(value) for value in expected[0].values()]
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[tfstream.Run, Path]:
    """A run whose folders, files, columns, groups, label, metrics and condition have such names."""
    # A folder of this name has one whose name ends the tag.
    folder = tmp_path_factory.mktemp("hostile") / "<script>window.broken=1<" / "script>'\""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    key, feature, label = (f"{name} {place}" for place, name in enumerate(NAMES[:3]))
    columns = {key: rng.choice(NAMES, 300), feature: rng.normal(size=300), label: np.arange(300.0)}
    source = folder / f"{NAMES[1]}.parquet"
    pq.write_table(pa.table(columns), source)
    shards = tfstream.convert([source], folder / NAMES[2], group_by=[_quoted(key)])
    stream = shards.where(f"{_quoted(feature)} < 99").stream(
        batch_size=BATCH, features=[feature], label=f"{_quoted(label)} > 3"
    )
    run = folder / NAMES[5]
    callback = tfstream.LineageCallback(run, stream, metrics=NAMES, flush_steps=4)
    callback.begin()
    for i, _ in enumerate(stream.dataset()):
        callback.step(**dict.fromkeys(NAMES, float(i)))
    callback.close()
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["report", str(run), "-o", str(path)]) == 0
    return tfstream.open_run(run), path


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


@pytest.mark.slow
def test_no_name_is_more_than_text(browser: Any, hostile: tuple[tfstream.Run, Path]) -> None:
    """Nothing of it runs or becomes an element, and all of it is shown as it is."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def texts(selector: str) -> list[str]:
        """What the elements say, hidden ones too."""
        found: list[str] = browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )
        return found

    run, page = hostile
    browser.get_log("browser")
    browser.get(page.as_uri())
    plots = browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")
    assert len(plots) == 6 + len(NAMES)
    WebDriverWait(browser, 30).until(
        lambda _: all(plot.find_elements(By.CSS_SELECTOR, ".main-svg") for plot in plots)
    )
    assert browser.title == f"Run {run.folder.name}"
    assert texts("h1") == [browser.title]
    headings = texts("h2")
    assert [heading for heading in headings if heading in NAMES] == list(NAMES)
    feed = run.description.training
    facts = dict(zip(*[iter(texts(".facts td"))] * 2, strict=True))
    assert facts["data set"] == f"{feed.folder} ({feed.dataset})"
    assert facts["features"] == ", ".join(feed.features)
    assert facts["label"] == feed.label
    assert facts["conditions"] == " and ".join(map(str, feed.recipe))
    # Figures: the title of the axis of each metric, the groups of the heat map, what a pointer shows.
    assert set(NAMES) <= set(texts(".ytitle"))
    heat = next(
        plot for plot in plots if plot.find_elements(By.CSS_SELECTOR, ".heatmaplayer image")
    )
    ticks = [e.get_attribute("textContent") for e in heat.find_elements(By.CSS_SELECTOR, ".ytick")]
    assert sorted(ticks) == sorted(NAMES)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", heat)
    drag = heat.find_element(By.CSS_SELECTOR, ".nsewdrag")
    ActionChains(browser).move_to_element(drag).pause(0.3).perform()
    WebDriverWait(browser, 30).until(lambda _: texts(".hoverlayer .hovertext"))
    assert any(name in "".join(texts(".hoverlayer .hovertext")) for name in NAMES)
    # The rows of steps.
    listed = texts("details")
    keys, source = run.catalog.manifest.keys, run.catalog.sources["path"][0].as_py()
    assert all(keys[0] in one and source in one for one in listed)
    cells = set(texts("details td"))
    assert set(NAMES) <= cells
    assert browser.execute_script("return window.broken") is None
    made = "img, a, b, iframe, [onload], [onerror], [href], details svg, .facts svg, h1 *, h2 *"
    assert texts(f":is({made}):not(svg.main-svg *)") == []
    # Plotly's, one a figure, and that of the page.
    assert len(texts("script")) == 2 + len(plots)
    assert browser.get_log("browser") == []


def test_the_page_loads_nothing(page: Path) -> None:
    """No script, style, picture or font from elsewhere."""
    text = page.read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\b(src|href)\s*=", own)
    assert EVIL not in text


def test_shares_of_bins_are_those_of_their_steps() -> None:
    """Each bin's shares add up to one and are the rows of its steps."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (1_003, 5)) + 1
    steps, shares = figures.binned(np.arange(1_003) * 2, counts)
    assert len(steps) == shares.shape[1] <= 200
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    first = counts[: steps[1] // 2].sum(axis=0)
    np.testing.assert_allclose(shares[:, 0], first / first.sum())


def test_a_run_without_steps_has_no_report(run: tfstream.Run, tmp_path: Path) -> None:
    """There is nothing to show."""
    shutil.copy(run.folder / "run.json", tmp_path / "run.json")
    from tfstream.lineage.report import write_report

    with pytest.raises(UsageError, match="has no step yet"):
        write_report(tfstream.open_run(tmp_path, shards=run.catalog.folder), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
