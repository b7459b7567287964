"""How quick the page is: first paint, reaction to a slider, bytes sent. In Debian's Chromium, headless.

    python scripts/bench_web.py [--runs 15]

The server runs as a process of its own, as `tgi-advisor web` starts it. A reaction is the time from the slider's event
to the new figures in the page; the table of GPUs follows by itself and is timed apart.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time

from playwright.sync_api import Page, sync_playwright

PAINT = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"""
REACT = """step => new Promise(done => {
    const range = document.querySelector('.slider:has(#context) .range'), begun = performance.now();
    let figures = null;
    new MutationObserver(() => { figures ??= performance.now() - begun; })
        .observe(document.getElementById('results'), {childList: true});
    new MutationObserver((_, all) => { all.disconnect(); done([figures, performance.now() - begun]); })
        .observe(document.getElementById('cards'), {childList: true});
    range.value = step;
    range.dispatchEvent(new Event('input', {bubbles: true}));
})"""
SENT = """() => performance.getEntries().filter(one => one.transferSize !== undefined)
    .map(one => [new URL(one.name).pathname, one.transferSize])"""


def main() -> int:
    """Prints the figures; 1 where one is not below half a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    browser_path = shutil.which("chromium")
    if browser_path is None:
        print("no chromium here: apt-get install chromium", file=sys.stderr)
        return 2
    begun = time.perf_counter()
    command = [sys.executable, "-m", "tgi_advisor", "web", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = server.stderr.readline() if server.stderr else ""
            print(f"server answers after      {1000 * (time.perf_counter() - begun):6.0f} ms")
            found = re.search(r"http://\S+", said)
            if found is None:
                print(said, file=sys.stderr)
                return 2
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
                slowest = max(_paint(browser.new_page(), found[0], runs), _react(browser.new_page(), found[0], runs))
                browser.close()
        finally:
            server.terminate()
    return int(slowest >= 500)


def _paint(page: Page, url: str, runs: int) -> float:
    """First paint of a page that is loaded anew, and what is sent for it."""
    paints = []
    for _ in range(runs):
        page.goto(url)
        page.wait_for_selector("table.cards")
        paints.append(float(page.evaluate(PAINT)))
    median = _told("first paint", paints)
    page.context.clear_cookies()
    fresh = page.context.browser.new_page() if page.context.browser else page
    fresh.goto(url)
    fresh.wait_for_selector("table.cards")
    sent = fresh.evaluate(SENT)
    for path, size in sent:
        print(f"  sent {path:<20} {size / 1000:6.1f} kB")
    print(f"sent for the first page   {sum(size for _, size in sent) / 1000:6.1f} kB")
    return median


def _react(page: Page, url: str, runs: int) -> float:
    """From a moved slider to the new figures."""
    page.goto(url)
    page.wait_for_selector("table.cards")
    figures, tables = [], []
    for run in range(runs):
        shown, whole = page.evaluate(REACT, 4 + run % 9)
        figures.append(float(shown))
        tables.append(float(whole))
    median = _told("figures after a slider", figures)
    _told("table of GPUs after it", tables)
    return median


def _told(name: str, times: list[float]) -> float:
    """Prints the median and the slowest; the median."""
    median = statistics.median(times)
    print(f"{name:<25} {median:6.0f} ms  slowest {max(times):6.0f} ms  of {len(times)}")
    return median


if __name__ == "__main__":
    sys.exit(main())
