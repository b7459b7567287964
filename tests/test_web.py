"""The page in a browser: over HTTP in this process, and in a real Chromium."""

from __future__ import annotations

import html
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from browser import CHROMIUM, chromium, served, violations
from front import environment, run
from hub import Hub, Tensors
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.testclient import TestClient

from tgi_advisor.facts.gpu import all_gpus
from tgi_advisor.gather import snapshot
from tgi_advisor.spec.reader import read_text
from tgi_advisor.spec.writer import dump
from tgi_advisor.web import state as states
from tgi_advisor.web.app import Settings, build
from tgi_advisor.web.serve import is_local, settings

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"
QUERIES = (
    "",
    "context=8192",
    "context=8k&answer=512&users=2",
    "gpu=nvidia-h100-sxm&kv=fp8_e5m2",
    "gpu=g6.12xlarge&model=Qwen/Qwen2.5-7B-Instruct",
    "gpu=nvidia-a10g&release=2.4.1",
    "model=Qwen/Qwen2.5-7B-Instruct-AWQ",
    "gpu=nvidia-a100-80gb-sxm&count=4&model=meta-llama/Llama-3.3-70B-Instruct&prefill=8192",
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(build(settings("127.0.0.1", online=False)), base_url="http://localhost") as one:
        yield one


def figures(text: str) -> dict[str, int]:
    """The limits of a page by TGI's names."""
    found = re.findall(r'<dd data-name="([^"]+)" data-raw="(\d+)"', text)
    return {name: int(value) for name, value in found}


def parts(text: str) -> list[tuple[str, int]]:
    """The parts of the memory."""
    return [(name, int(size)) for size, name in re.findall(r'<tr data-bytes="(\d+)" data-part="([^"]+)"', text)]


def options(query: str) -> list[str]:
    """The same question on the command line."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    line = ["--offline", "--model", asked.get("model", LLAMA), "--gpu", asked.get("gpu", "nvidia-l4")]
    for name, option in (
        ("count", "--count"),
        ("release", "--release"),
        ("users", "--users"),
        ("context", "--context"),
    ):
        line += [option, asked[name]] if name in asked else []
    for name, path in (
        ("quantize", "model.quantize"), ("kv", "model.kv_cache_dtype"), ("answer", "workload.max_new_tokens"),
        ("prefill", "limits.max_batch_prefill_tokens"),
    ):  # fmt: skip
        line += ["--set", f"{path}={asked[name]}"] if name in asked else []
    return line


@pytest.mark.parametrize("query", QUERIES)
def test_the_figures_are_those_of_predict(client: TestClient, query: str) -> None:
    page = client.get(f"/?{query}").text
    limits = figures(page)
    pinned = [
        f"limits.{name}={limits[name]}" for name in ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
    ]
    predicted = run("predict", *options(query), *[word for one in pinned for word in ("--set", one)], "--json")
    said = json.loads(predicted.out)
    assert limits == {**said["limits"], "full-length requests": said["concurrency"]}
    assert parts(page) == [(part["name"], part["bytes"]) for part in said["memory"]["parts"]]
    band = said["uncertainty"]
    assert f"{band['max_batch_total_tokens_low']:,} to {band['max_batch_total_tokens_high']:,}" in page
    for part in said["memory"]["parts"]:
        assert html.escape(part["why"]) in page.replace("&#39;", "&#x27;")


def test_limits_that_do_not_fit_are_told_as_advise_tells_them(client: TestClient) -> None:
    query = "mode=checkpoint&context=32k&prefill=4096&answer=1024"
    text = client.get(f"/results?{query}").text
    found = json.loads(run("advise", *options(query), "--json").out)
    assert found["reason"] in html.unescape(text)


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_taken_away_is_what_emit_prints(client: TestClient, query: str) -> None:
    for name in ("docker-run", "compose", "kubernetes"):
        answer = client.get(f"/take/{name}?{query}")
        assert answer.text == run("emit", *options(query), "--format", name).out
        assert answer.headers["content-disposition"].startswith('attachment; filename="')


@pytest.mark.parametrize("query", QUERIES)
def test_the_spec_taken_away_asks_the_same(client: TestClient, query: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(client.get(f"/take/spec?{query}").text, "utf-8")
    assert dump(read_text(path.read_text("utf-8"), "spec.yaml")) == path.read_text("utf-8")
    assert run("emit", str(path), "--offline").out == client.get(f"/take/docker-run?{query}").text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("context=many", "Context: expected a count such as 4096, 8k"),
        ("context=0", "Context: 0 is not between 1 and"),
        ("users=-1", "Requests at once: expected a count"),
        ("count=99999999", "GPUs: 99999999 is not between 1 and 1,024"),
        ("gpu=nvidia-l5", "Did you mean 'nvidia-l4'"),
        ("gpu=auto", "cannot look at your machine"),
        ("release=9.9.9", "9.9.9"),
        ("quantize=int3", "quantize"),
        ("model=/etc", "neither a folder here nor a model id"),
        ("model=./configs", "neither a folder here nor a model id"),
        ("model=me/nothing", "There are no facts about me/nothing"),
        ("modle=gpt2", "did you mean 'mode"),
        ("mode=guess", "mode 'guess' is not known"),
        ("context=1k&context=2k", "context is given twice"),
        ("model=" + "x" * 500, "model is too long"),
        ("model=a%00b", "cannot be shown"),
        ("mode=stated&params=lots", "is no number above 0"),
        ("mode=stated&params=nan", "is no number above 0"),
        ("mode=stated&params=7&bits=0", "is no number above 0"),
        ("mode=stated&users=x", "Requests at once: expected"),
        ("context=x&users=y", "This cannot be read."),
        ("context=4096&answer=8192", "workload.max_new_tokens"),
        ("gpu=%7Bname: x%7D", "x"),
    ],
)
def test_bad_input_is_told_in_a_sentence(client: TestClient, query: str, said: str) -> None:
    for path in ("/", "/results"):
        answer = client.get(f"{path}?{query}")
        text = html.unescape(answer.text)
        assert answer.status_code == 200
        assert said in text
        assert 'class="card verdict bad"' in text
        assert "Traceback" not in text
        assert "defect" not in text
    assert client.get(f"/cards?{query}").status_code == 200
    assert client.get(f"/take/compose?{query}").status_code == 404


def test_what_is_typed_is_escaped(client: TestClient) -> None:
    evil = "<script>alert(1)</script>\"'"
    for name in states.NAMES:
        text = client.get("/", params={name: evil}).text
        assert "<script>alert" not in text


def test_a_refusal_is_in_tgis_words(client: TestClient) -> None:
    text = html.unescape(client.get("/results?quantize=awq").text)
    assert "TGI refuses to start" in text
    assert "Cannot load `awq` weight" in text


def test_what_is_missing_is_said(client: TestClient) -> None:
    query = "model=meta-llama/Llama-3.1-70B-Instruct"
    text = client.get(f"/results?{query}").text
    said = json.loads(run("advise", *options(query), "--json").out)
    steps = html.unescape(client.get(f"/steps?{query}&bad").text)
    assert said["next_steps"]
    assert re.findall(r"<li>(.*?)</li>", steps) == said["next_steps"]
    assert said["reason"] in html.unescape(text)
    assert f"{-said['memory']['headroom_bytes'] / (1 << 30):.2f} GiB missing" in text


def test_the_table_of_gpus_is_that_of_compare(client: TestClient) -> None:
    text = client.get("/cards?context=8k").text
    line = ("compare", "--offline", "-m", LLAMA, "--count", "1", "--quantize", "none")
    rows = json.loads(run(*line, "--set", "limits.max_total_tokens=8k", "--json").out)["comparison"]
    marks = dict(re.findall(r'data-gpu="([^"]+)">[^<]+</a></th><td[^>]*><span class="mark">([^<]+)', text))
    assert len(marks) == len(rows) > 50
    for row in rows:
        if row["outcome"] == "starts":
            assert marks[row["gpu"]].startswith("fits")
        elif row["outcome"] == "refused":
            assert marks[row["gpu"]] == "TGI refuses"
        elif row["headroom_bytes"] < 0:
            assert marks[row["gpu"]] == f"{-row['headroom_bytes'] / (1 << 30):.2f} GiB missing"
    assert f"{sum(row['outcome'] == 'starts' for row in rows)} of {len(rows)} GPUs would do" in text


def test_where_no_single_gpu_does_several_are_shown(client: TestClient) -> None:
    text = client.get("/cards?model=meta-llama/Llama-3.1-405B-Instruct").text
    assert re.search(r"<h2>0 of \d+ GPUs would do; \d+ would, \d of each together</h2>", text)
    first = re.search(r'<a href="\?([^"]+)"', text)
    assert first
    assert "It fits." in client.get(f"/results?{html.unescape(first[1])}").text


def test_a_stated_model_is_judged_by_the_rules_of_thumb(client: TestClient) -> None:
    page = client.get("/?mode=stated&params=13&layers=40&hidden=5120&context=2000&users=10").text
    shape = ("--params", "13B", "--layers", "40", "--hidden", "5120")
    rows = json.loads(run("size", *shape, "-u", "10", "-i", "1500", "-o", "500", "--json").out)["rough"]
    assert figures(page) == {f"{row['rule']}: {row['part']}": row["bytes"] for row in rows if not row["gpu"]}


def test_a_token_reaches_neither_page_nor_link(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for query in ("", f"model={TOKEN}", f"gpu={TOKEN}", f"{TOKEN}=1", f"model=https://me:{TOKEN}@hub/x"):
        for path in ("/", "/results", "/cards", "/take/compose", "/take/spec"):
            answer = client.get(f"{path}?{query}")
            assert TOKEN not in answer.text
            assert TOKEN not in str(answer.headers)
    assert "a token stood in the address" in client.get(f"/results?model={TOKEN}").text


@pytest.mark.parametrize(
    ("host", "hosts", "code"),
    [
        ("localhost:7860", (), 200),
        ("127.0.0.1:7860", (), 200),
        ("[::1]:7860", (), 200),
        ("evil.example", (), 421),
        ("localhost.evil.example", (), 421),
        ("127.0.0.1.evil.example", (), 421),
        ("", (), 421),
        ("[", (), 421),
        ("gpu.example.com", ("gpu.example.com",), 200),
        ("me-tgi.hf.space", ("*.hf.space",), 200),
        ("hf.space.evil.example", ("*.hf.space",), 421),
        ("anything", ("*",), 200),
    ],
)
def test_other_names_are_not_answered(host: str, hosts: tuple[str, ...], code: int) -> None:
    app = build(Settings(hosts=hosts))
    assert TestClient(app, base_url="http://localhost").get("/health", headers={"host": host}).status_code == code


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for text in (answer.text, *(client.get(f"/static/{name}").text for name in ("page.js", "page.css"))):
        assert not re.search(r"""(src|href)=["'](https?:)?//|url\(|@import""", text)
    framed = TestClient(build(Settings(framed_by="https://huggingface.co")), base_url="http://localhost").get("/")
    assert "frame-ancestors https://huggingface.co" in framed.headers["content-security-policy"]


def test_a_long_address_is_not_read(client: TestClient) -> None:
    assert client.get("/?" + "a=1&" * 4000).status_code == 414


def test_opened_to_others_it_looks_at_shipped_models_alone() -> None:
    assert settings("127.0.0.1", online=False).where.source == "auto"
    assert settings("0.0.0.0", online=False).where.source == "snapshot"
    assert [is_local(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.1", "host")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_told() -> None:
    with served() as url:
        ran = run("web", "--port", str(urlsplit(url).port))
    assert ran.code == 2
    assert "cannot be listened on" in ran.err


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    ran = run("web")
    assert ran.code == 12
    assert "pip install 'tgi-advisor[web]'" in ran.err


@given(st.dictionaries(st.sampled_from(states.NAMES), st.text(max_size=12), max_size=6))
@hypothesis_settings(max_examples=200, deadline=None)
def test_a_link_restores_its_page(texts: dict[str, str]) -> None:
    once = states.read(texts.items())
    again = states.read((name, values[0]) for name, values in parse_qs(once.link()).items())
    assert dict(again.texts) == dict(once.texts)
    assert again.problems == ()


def test_no_question_takes_for_ever(client: TestClient) -> None:
    query = "model=google/gemma-3-27b-it&gpu=nvidia-rtx-5090&quantize=fp8&users=65536&prefill=262144"
    text = client.get(f"/cards?{query}").text
    judged = re.search(r"of (\d+) GPUs would do(?:; (\d+) took too long to judge)?", text)
    assert judged
    assert int(judged[1]) + int(judged[2] or 0) == len([row for row in all_gpus() if row.facts])
    assert "is not between 1 and 262,144" in client.get("/results?prefill=1m").text


def test_another_id_is_asked_of_the_hub_and_the_token_stays_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensors: Tensors = {f"model.layers.{n}.mlp.up_proj.weight": ("BF16", (96, 64)) for n in range(4)}
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "vocab_size": 320,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
    }  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Hub() as hub, TestClient(build(settings("127.0.0.1", online=True)), base_url="http://localhost") as online:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.add("org/tiny", config, tensors)
        text = online.get("/?model=org/tiny").text
        assert "org/tiny on 1 × nvidia-l4" in text
        assert "It fits." in text or "It starts" in text or "refuses" in text
        assert any(TOKEN in (request.authorization or "") for request in hub.requests)
        gone = online.get("/?model=org/gone").text
        assert 'class="card verdict bad"' in gone
        for answer in (text, gone, online.get("/take/spec?model=org/tiny").text):
            assert TOKEN not in answer
        client = TestClient(build(settings("127.0.0.1", online=False)), base_url="http://localhost")
        asked = len(hub.requests)
        client.get("/?model=org/other")
        assert len(hub.requests) == asked


def test_visitors_at_the_same_time_get_their_own_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgi_advisor.web.answer.LONGEST", 600.0)  # the table of GPUs leaves none out for want of time
    queries = [f"/results?{query}" for query in QUERIES] + [f"/cards?{query}" for query in QUERIES[:3]]
    alone = {query: client.get(query).text for query in queries}
    with ThreadPoolExecutor(8) as visitors:
        together = list(visitors.map(lambda query: (query, client.get(query).text), queries * 3))
    assert [query for query, text in together if text != alone[query]] == []


@pytest.mark.parametrize(("host", "opens"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_command_says_where_the_page_is_and_what_opening_it_means(host: str, opens: bool) -> None:
    command = [sys.executable, "-m", "tgi_advisor", "web", "--host", host, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(HF_TOKEN=TOKEN)) as server:
        assert server.stderr
        said = server.stderr.readline()
        found = re.fullmatch(rf"tgi-advisor is at http://{re.escape(host)}:(\d+)/ \(Ctrl-C ends it\)\n", said)
        assert found
        with urlopen(f"http://127.0.0.1:{found[1]}/?context=8k") as answer:
            text = answer.read().decode()
        server.send_signal(signal.SIGINT)
        rest = server.stderr.read()
    assert server.returncode in (0, 130)
    assert figures(text)["max_total_tokens"] == 8192
    assert TOKEN not in text
    assert ("Anyone who reaches this address" in rest) is opens
    assert "Traceback" not in rest


# In a real browser

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


class Visit:
    """A visitor: whatever the page asks for or complains of is kept, and nothing of it may be wrong."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def go(self, query: str = "") -> Page:
        self.page.goto(f"{self.url}?{query}" if query else self.url)
        self.settled()
        return self.page

    def settled(self) -> None:
        expect(self.page.locator("body:not([data-busy])")).to_be_visible()

    def close(self) -> None:
        self.context.close()
        assert self.asked
        assert [one for one in self.asked if not one.startswith(self.url)] == []
        assert self.complaints == []


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    one = Visit(browser, url, viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield one
    one.close()


def figure(page: Page, name: str) -> int:
    return int(page.locator(f'dd[data-name="{name}"]').get_attribute("data-raw") or 0)


def slide(page: Page, name: str, step: int) -> None:
    page.locator(f".slider:has(#{name}) .range").evaluate(
        "(range, step) => { range.value = step; range.dispatchEvent(new Event('input', {bubbles: true})); }", step
    )


@needs_chromium
def test_sliders_move_the_numbers_and_the_link_restores_them(visit: Visit, browser: Browser, url: str) -> None:
    page = visit.go()
    before = figure(page, "max_total_tokens")
    slide(page, "context", 8)
    expect(page.locator("#context")).to_have_value("8192")
    expect(page.locator('dd[data-name="max_total_tokens"]')).to_have_text("8,192")
    assert before > 8192
    slide(page, "users", 1)
    visit.settled()
    expect(page).to_have_url(f"{url}?context=8192&users=2")
    shown = page.locator("#results").inner_text()
    other = Visit(browser, url, viewport={"width": 1280, "height": 900})
    restored = other.go(urlsplit(page.url).query)
    assert restored.locator("#results").inner_text() == shown
    assert restored.locator("#context").input_value() == "8192"
    assert restored.locator("#users").input_value() == "2"
    other.close()
    page.get_by_role("button", name="Context: auto").click()
    expect(page.locator('dd[data-name="max_total_tokens"]')).not_to_have_text("8,192")
    expect(page.get_by_role("button", name="Context: auto")).to_have_attribute("aria-pressed", "true")


@needs_chromium
@pytest.mark.parametrize("control", states.LOAD, ids=lambda one: one.name)
def test_every_slider_moves_something(visit: Visit, control: states.Control) -> None:
    page = visit.go()
    before = page.locator("#results").inner_text()
    slide(page, control.name, 2)
    visit.settled()
    assert page.locator("#results").inner_text() != before
    assert f"{control.name}={control.steps[2]}" in page.url


@needs_chromium
def test_the_figures_in_the_browser_are_those_of_predict(visit: Visit) -> None:
    page = visit.go()
    page.locator("#gpu").fill("nvidia-h100-sxm")
    page.locator("#release").select_option("2.4.1")
    slide(page, "context", 8)
    visit.settled()
    names = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens")
    pinned = [word for name in names for word in ("--set", f"limits.{name}={figure(page, name)}")]
    line = options("gpu=nvidia-h100-sxm&release=2.4.1")
    said = json.loads(run("predict", *line, *pinned, "--json").out)
    assert figure(page, "max_batch_total_tokens") == said["limits"]["max_batch_total_tokens"]
    shown = page.locator("table.parts tbody tr").evaluate_all("rows => rows.map(r => Number(r.dataset.bytes))")
    assert shown == [part["bytes"] for part in said["memory"]["parts"]]


@needs_chromium
def test_downloads_are_what_emit_prints(visit: Visit, tmp_path: Path) -> None:
    page = visit.go("context=8k")
    for name, label in (("docker-run", "docker run"), ("compose", "Compose"), ("kubernetes", "Kubernetes")):
        block = page.locator(f'[data-take="{name}"]')
        if block.get_attribute("open") is None:
            block.locator("summary").click()
        with page.expect_download() as got:
            block.get_by_role("link", name="Download").click()
        got.value.save_as(tmp_path / name)
        printed = run("emit", *options("context=8k"), "--format", name).out
        assert (tmp_path / name).read_text("utf-8") == printed
        assert block.locator("pre").text_content() == printed, label


@needs_chromium
def test_copy_copies(browser: Browser, url: str) -> None:
    one = Visit(browser, url, permissions=["clipboard-read", "clipboard-write"])
    page = one.go("context=8k")
    page.get_by_role("button", name="Copy docker run").click()
    expect(page.locator("#said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == run("emit", *options("context=8k")).out
    page.get_by_role("button", name="Copy the link").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).endsWith('context=8k')")
    one.close()


@needs_chromium
def test_a_gpu_of_the_table_can_be_chosen(visit: Visit) -> None:
    page = visit.go("model=meta-llama/Llama-3.1-70B-Instruct")
    first = page.locator("table.cards tbody tr.good a").first
    gpu = first.get_attribute("data-gpu") or ""
    first.click()
    expect(page.locator(".verdict")).to_have_class(re.compile("good"))
    assert page.locator("#gpu").input_value() == gpu


@needs_chromium
def test_a_model_stated_by_its_size(visit: Visit) -> None:
    page = visit.go()
    page.get_by_label("Only its size").check()
    expect(page.locator("#params")).to_be_visible()
    expect(page.locator("#model")).to_be_hidden()
    slide(page, "params", 9)
    expect(page.locator('dd[data-name="calculator: weights"]')).to_have_text("26.00 GB")


@needs_chromium
def test_bad_input_shows_a_sentence_and_the_page_goes_on(visit: Visit) -> None:
    page = visit.go()
    page.locator("#gpu").fill("nvidia-l5")
    page.locator("#gpu").press("Enter")
    expect(page.locator(".verdict.bad")).to_contain_text("Did you mean 'nvidia-l4'")
    page.locator("#gpu").fill("nvidia-l4")
    expect(page.locator(".verdict.good h2")).to_have_text("It fits.")


@needs_chromium
def test_two_visitors_do_not_see_each_other(browser: Browser, url: str) -> None:
    one, two = Visit(browser, url), Visit(browser, url)
    first, second = one.go(), two.go()
    calm = second.locator("#results").inner_text()
    slide(first, "context", 8)
    one.settled()
    assert second.locator("#results").inner_text() == calm
    second.reload()
    two.settled()
    assert second.locator("#results").inner_text() == calm
    assert one.context.cookies() == two.context.cookies() == []
    assert first.evaluate("localStorage.length + sessionStorage.length") == 0
    one.close()
    two.close()


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_axe_finds_nothing_serious_and_nothing_sticks_out(browser: Browser, url: str, width: int, theme: Any) -> None:
    one = Visit(browser, url, viewport={"width": width, "height": 800}, color_scheme=theme)
    for query in (
        "context=8k&users=2", "mode=stated", "model=meta-llama/Llama-3.1-70B-Instruct&users=100&context=4k",
        "gpu=nvidia-l5&context=x", "quantize=awq",
    ):  # fmt: skip
        page = one.go(query)
        if width != 768:  # between the two the page is one of them
            assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    one.close()


@needs_chromium
def test_the_keyboard_does_everything(visit: Visit) -> None:
    page = visit.go("context=8192")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.name || document.activeElement.className"))
        if page.evaluate("document.activeElement.matches('.slider:has(#context) .range')"):
            page.keyboard.press("ArrowRight")
            expect(page.locator('dd[data-name="max_total_tokens"]')).to_have_text("12,288")
    for name in ("model", "gpu", "count", "release", "quantize", "kv", "context", "users", "range", "auto"):
        assert name in seen
    page.locator('[data-take="compose"] summary').focus()
    page.keyboard.press("Enter")
    expect(page.locator('[data-take="compose"] pre')).to_be_visible()


@needs_chromium
def test_every_shipped_model_can_be_searched(visit: Visit) -> None:
    page = visit.go()
    offered = page.locator("#models option").evaluate_all("all => all.map(one => one.value)")
    assert offered == snapshot.names()


@needs_chromium
def test_without_script_the_form_still_asks(browser: Browser, url: str) -> None:
    one = Visit(browser, url, java_script_enabled=False)
    page = one.go()
    page.locator("#context").fill("8k")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator('dd[data-name="max_total_tokens"]')).to_have_text("8,192")
    one.close()
