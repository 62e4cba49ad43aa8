"""The page in a real browser: what is typed changes the list."""

import shutil
import threading
import time

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import recbole_dpr
from recbole_dpr.serving import web

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs the Debian packages chromium and chromium-driver"
)
RED = {f"i{n}" for n in range(0, 24, 2)}


@pytest.fixture(scope="module")
def address(trained_run):
    recommender = recbole_dpr.load(trained_run["run_dir"])
    listening = web.listen("127.0.0.1", 0)
    server = web.make_server(web.make_app(recommender))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    try:
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    """The page on the first user of the data, whose lists are there."""
    browser.get("about:blank")
    browser.get(address)
    wait(browser, lambda: len(items(browser, "before")) == 10)
    return browser


def wait(browser, condition):
    return WebDriverWait(browser, 20, 0.05).until(lambda _: condition())


def items(browser, name):
    return browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} li`)].map((row) => row.dataset.item)",
        name,
    )


def turn(browser, n):
    return browser.find_elements(By.CLASS_NAME, "turn")[n]


def settled(browser, prompt):
    """Wait until the lists belong to this prompt."""
    wait(browser, lambda: browser.execute_script("return document.body.dataset.prompt") == prompt)


def text(browser, name):
    return browser.find_element(By.ID, name).text


def test_typing_a_prompt_changes_the_list(page):
    assert items(page, "after") == items(page, "before")
    turn(page, 0).send_keys("something red please")
    settled(page, "something red please\n")
    assert set(items(page, "after")[:5]) <= RED and items(page, "after") != items(page, "before")
    assert text(page, "read") == "wants red" and "expert 2" in text(page, "router")
    assert "▲" in text(page, "after") and "▼" in text(page, "before")
    assert "by your words" in text(page, "after") and "Thing number" in text(page, "after")


def test_a_second_turn_overrules_the_first(page):
    turn(page, 0).send_keys("something red please")
    turn(page, 1).send_keys("nothing red")
    settled(page, "something red please\nnothing red")
    assert text(page, "read") == "rejects red"
    assert not set(items(page, "after")[:5]) & RED


def test_strength_zero_is_no_prompt_and_works_from_the_keyboard(page):
    turn(page, 0).send_keys("something red please")
    settled(page, "something red please\n")
    moved = items(page, "after")
    page.find_element(By.ID, "strength").send_keys(Keys.HOME)
    wait(page, lambda: items(page, "after") == items(page, "before"))
    assert moved != items(page, "before") and text(page, "strength-shown") == "0.0"


def test_a_history_from_titles_without_a_mouse(page):
    count = len(page.find_elements(By.CSS_SELECTOR, "#history button"))
    page.find_element(By.ID, "search").send_keys("number 7")
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#found button"))
    page.find_element(By.ID, "search").send_keys(Keys.ENTER)
    buttons = page.find_elements(By.CSS_SELECTOR, "#history button")
    assert len(buttons) == count + 1 and buttons[-1].text.startswith("Thing number 7")
    buttons[-1].send_keys(Keys.ENTER)  # each is a button that removes its item
    assert len(page.find_elements(By.CSS_SELECTOR, "#history button")) == count


def test_removing_an_item_leaves_the_focus_in_the_history(page):
    def buttons():
        return page.find_elements(By.CSS_SELECTOR, "#history button")

    texts = [button.text for button in buttons()]
    buttons()[1].send_keys(Keys.ENTER)
    assert page.switch_to.active_element.text == texts[2]  # what has moved up
    buttons()[-1].send_keys(Keys.ENTER)
    assert page.switch_to.active_element.text == texts[-2]
    for _ in texts[2:]:
        page.switch_to.active_element.send_keys(Keys.ENTER)
    assert not buttons() and page.switch_to.active_element.get_attribute("id") == "search"


def never(page, path):
    """Let the server never answer what is asked at this path; a request can still be given up."""
    page.execute_script(
        """
        const real = window.fetch, path = arguments[0];
        window.fetch = (asked, options) => !asked.startsWith(path) ? real(asked, options)
          : new Promise((_, reject) => options?.signal?.addEventListener("abort",
              () => reject(new DOMException("given up", "AbortError"))));
        """,
        path,
    )


def test_enter_adds_no_item_that_was_found_for_another_text(page):
    count = len(page.find_elements(By.CSS_SELECTOR, "#history button"))
    search = page.find_element(By.ID, "search")
    search.send_keys("number 7")
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#found button"))
    never(page, "items")
    search.send_keys(Keys.BACKSPACE + "8" + Keys.ENTER)
    assert len(page.find_elements(By.CSS_SELECTOR, "#history button")) == count


def test_a_history_emptied_while_the_server_is_asked_leaves_nothing_busy(page):
    never(page, "recommend")
    turn(page, 0).send_keys("red")
    busy = "return 'busy' in document.getElementById('lists').dataset"
    wait(page, lambda: page.execute_script(busy))
    page.execute_script("change({ history: [] })")
    wait(page, lambda: "Choose a history first" in text(page, "after"))
    assert not page.execute_script(busy)


@pytest.mark.parametrize("doing", ["search", "user", "address"])
def test_a_failure_is_told_whatever_one_does(page, doing):
    page.execute_script("window.fetch = () => Promise.reject(new Error('the server has gone'))")
    if doing == "search":
        page.find_element(By.ID, "search").send_keys("7")
    elif doing == "user":
        page.execute_script("titles.clear()")
        page.find_element(By.ID, "user").send_keys(Keys.DOWN)
    else:
        page.execute_script("titles.clear(); location.hash = 'i=i3'")
    wait(page, lambda: text(page, "error") == "the server has gone")


def test_a_link_reproduces_the_view(page):
    turn(page, 0).send_keys("nothing blue & 100% red?")
    settled(page, "nothing blue & 100% red?\n")
    page.find_element(By.ID, "exclude_history").click()
    before = items(page, "after")
    wait(page, lambda: items(page, "after") != before)
    expected, link = items(page, "after"), page.current_url
    page.get("about:blank")
    page.get(link)
    wait(page, lambda: items(page, "after"))
    assert items(page, "after") == expected
    assert turn(page, 0).get_attribute("value") == "nothing blue & 100% red?"
    assert page.find_element(By.ID, "exclude_history").is_selected()


def test_markup_is_shown_as_text(page, address):
    markup = "<img src=x onerror=document.title='broken'><b>red</b>"
    turn(page, 0).send_keys(markup)
    settled(page, markup + "\n")
    page.get(f"{address}#i=%3Cimg%20src%3Dx%3E&p=red")
    page.refresh()
    wait(page, lambda: "no item of tiny" in text(page, "error"))
    assert page.title == "recbole_dpr" and not page.find_elements(By.TAG_NAME, "img")
    assert "<img src=x>" in text(page, "history")


def test_a_phones_width_needs_no_sideways_scrolling(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        tops = [page.find_element(By.ID, name).rect["y"] for name in ("after", "before")]
        assert tops == sorted(tops)  # what the prompt gives comes first
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_from_typing_to_the_changed_list(page):
    """A loose bound; benchmarks/serving.py measures it."""
    started = time.perf_counter()
    turn(page, 0).send_keys("blue")
    settled(page, "blue\n")
    assert time.perf_counter() - started < 5
    assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"
                and "favicon" not in entry["message"] and "400" not in entry["message"]]  # fmt: skip
