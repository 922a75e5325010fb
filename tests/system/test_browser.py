"""report.html in a real browser: it renders, asks for nothing and fits wide and narrow windows. Skipped without a Chromium."""

import pytest
from makers import evaluation
from makers.browser import browser, find_browser
from matplotlib.figure import Figure

from nowcast.report import folder as report_folder
from nowcast.report.maps import svg

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LONG = "a_name_without_any_place_to_break_it_" * 6


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "scores"
    result = evaluation(names=(LONG, HOSTILE, "persistence", "extrapolation"), records=(HOSTILE,), leads=2)
    return report_folder.write(result, result.rows(), folder, command=f"nowcast evaluate {LONG}")[0]


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def complaints(tab):
    """What the browser wrote to its console."""
    written = [entry["entry"]["text"] for entry in tab.heard("Log.entryAdded")]
    called = [str(entry["args"]) for entry in tab.heard("Runtime.consoleAPICalled")]
    return written + called + [str(thrown) for thrown in tab.heard("Runtime.exceptionThrown")]


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_renders_whole_and_fits_the_window(page, tab, width):
    tab.open(page, width=width)
    assert complaints(tab) == []
    sizes = tab.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])")
    assert len(sizes) > 15
    assert all(complete and natural > 0 and 100 < shown <= width for complete, natural, shown in sizes)
    assert tab.evaluate("innerWidth") == width
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.body.children].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    assert tab.evaluate(outside) == []


def shown(tab, path):
    """Return the picture that a browser shows of a file."""
    tab.open(path, width=1000)
    return tab.call("Page.captureScreenshot", format="png")["data"]


def test_the_page_and_its_pictures_stay_light_in_a_browser_that_darkens_pages(page, tab, tmp_path):
    """Darkened, the axes were white on white."""
    picture, plain = tmp_path / "picture.svg", tmp_path / "plain.html"
    figure = Figure(figsize=(3, 2))
    figure.subplots()
    picture.write_bytes(svg(figure))
    plain.write_text("<p>light unless it is darkened</p>")
    light = [shown(tab, path) for path in (page, picture, plain)]
    with browser(tmp_path / "profile", "--force-dark-mode", "--enable-features=WebContentsForceDark") as dark:
        assert [shown(dark, path) == as_light for path, as_light in zip((page, picture, plain), light, strict=True)] == [
            True, True, False,
        ]  # fmt: skip


def test_nothing_is_asked_of_the_network(page, tab):
    tab.open(page, width=1280)
    asked = [request["request"]["url"].partition(",")[0] for request in tab.heard("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [page.resolve().as_uri()]


def test_what_looks_like_a_script_in_a_name_is_shown_and_not_run(page, tab):
    tab.open(page, width=1280)
    assert tab.evaluate("document.title").startswith("nowcast: scores of ")
    assert tab.evaluate("document.scripts.length") == 0
    assert HOSTILE in tab.evaluate("document.body.innerText")


@pytest.mark.parametrize("width", [1400, 420])
def test_no_table_is_cut_off(page, tab, width):
    """Closed tables are opened first; on a narrow window each row is a list."""
    tab.open(page, width=width)
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    cut = "[...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"
    assert tab.evaluate(cut) == []
    assert tab.evaluate("document.querySelectorAll('.table td').length") > 100
    outside = (
        "[...document.querySelectorAll('td, th, figcaption, a')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    )
    assert tab.evaluate(f"{outside}.map(e => e.innerText)") == []


def test_the_contents_lead_to_their_sections(page, tab):
    tab.open(page, width=1400)
    tops = tab.evaluate("[...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash).offsetTop)")
    assert len(tops) > 6
    assert tops == sorted(tops)


def test_the_probe_finds_faults(tmp_path, tab):
    """The checks above can fail: a page with a script error, a request and something too wide."""
    (tmp_path / "bad.html").write_text("<p style='width:2000px'>wide</p><img src='absent.png'><script>unknown()</script>")
    tab.open(tmp_path / "bad.html", width=400)
    assert any("unknown" in text for text in complaints(tab))
    assert len(tab.heard("Network.requestWillBeSent")) == 2
    assert tab.evaluate("document.documentElement.scrollWidth") > 400
    assert tab.evaluate("document.images[0].naturalWidth") == 0
