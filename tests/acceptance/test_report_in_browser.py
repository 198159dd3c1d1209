"""The report of a run, in a browser: what it draws, what it asks for, and who can use it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from batchrunner.analytics import CompletedRun, open_store
from batchrunner.analytics.batch_records import BatchRunRecord
from batchrunner.runner import BatchRunner
from batchrunner.views.report_data import run_report
from batchrunner.views.report_runs import runs_report
from browser import opened
from builders import a_spec, rows, write_jsonl
from evaluations import Score
from recorded_run import COMPLETE, OnPaper, record_run

SESSIONS = [OnPaper(170), OnPaper(140, later=5 * 3600), OnPaper(260, workers=6, later=40)]
FAILED = (580, 581)
HOSTILE = (
    "</script><script>document.title = 'ours'</script><img src=x onerror=alert(1)>\u202e\u0007"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def written(folder):
    """Reports on paper by name: the file, and the report that it was made of."""
    reports = {
        "resumed": _on_paper(
            folder, "resumed", SESSIONS, shards=600, fails=0.1, quarantined=FAILED
        ),
        "empty": _on_paper(folder, "empty", [OnPaper(0, end=COMPLETE)], shards=0),
        "begun": _on_paper(folder, "begun", [OnPaper(0)], shards=40),
        "old": _on_paper(folder, "old", [OnPaper(30, end=COMPLETE)], shards=30, dated=False),
        "damaged": _damaged(folder),
        "hostile": _hostile(folder),
        "runs": _runs(folder),
        "batches": _batches(folder),
    }
    for name, report in reports.items():
        (folder / f"{name}.html").write_text(report.to_html(), "utf-8")
    return {name: (folder / f"{name}.html", report) for name, report in reports.items()}


def _on_paper(folder, name, sessions, **how):
    return run_report(record_run(folder / name, sessions, **how), spec="specs/nightly.yaml")


def _damaged(folder):
    checkpoint = record_run(folder / "damaged", [OnPaper(5)], shards=9)
    checkpoint.storage.put("plan/0000.parquet", b"torn")
    return run_report(checkpoint)


def _hostile(folder):
    """A real run over hostile rows, in files with hostile names, whose code raises hostile errors."""
    source = folder / "hostile/in"
    bad = {"id": 1, "bad": True, "text": HOSTILE + "x" * 1_000_000}
    write_jsonl(source / "a<b>&.jsonl", [*rows(0, 1), bad, *rows(2, 1)])
    write_jsonl(source / "\u202egnp.jsonl", rows(3, 3))
    capability = {"target": "failing:hostile"}
    spec = a_spec(folder / "hostile", capability=capability, errors={"max_row_errors": 1})
    runner = BatchRunner(spec)
    assert runner.run().rows_failed == 1
    return runner.report()


def _runs(folder):
    store = open_store(str(folder / "store"))
    for number, value in enumerate((0.81, 0.84)):
        uid = f"run-{number}"
        records = [Score(run_uid=uid, value=value, note=f"{number}{HOSTILE}")]
        store.write([CompletedRun(uid, "evaluate", records=records)])
    return runs_report(store, ["run-0", "run-1"])


def _batches(folder):
    """Two batches, with hashes and URIs as long as they are."""
    store = open_store(str(folder / "batches"))
    uids = [letter * 64 for letter in "ab"]
    for uid in uids:
        store.write([CompletedRun(uid, "nightly", records=[_batch(uid)])])
    return runs_report(store, uids)


def _batch(uid):
    places = {"source_uri": "s3://lake/crawl/2026", "sink_uri": f"s3://lake/{uid}"}
    numbers = ("shards", "sessions", "rows_in", "rows_out", "rows_failed", "bytes_out")
    counts = dict.fromkeys(numbers, 123_456_789)
    return BatchRunRecord(run_uid=uid, name="nightly", fingerprint=uid, **places, **counts)


NAMES = ["resumed", "empty", "begun", "old", "damaged", "hostile", "runs", "batches"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_without_a_request_and_without_an_error(chromium, written, name, scheme):
    """It may be opened in a mail, in ten years, on a machine without a network."""
    with opened(chromium, written[name][0], color_scheme=scheme) as report:
        assert report.said == []
        assert [url for url in report.asked if not url.startswith("data:")] == []
        assert report.text("h1")


def test_the_policy_stops_what_would_get_in(chromium, written):
    """The second line of defence, should the first fail: no script, no style, no request."""
    tries = """() => new Promise((done) => {
        const blocked = [];
        addEventListener("securitypolicyviolation", (event) => {
            blocked.push(event.effectiveDirective);
            if (new Set(blocked).size === 5) done(blocked);
        });
        const add = (tag, set) => document.body.append(Object.assign(document.createElement(tag), set));
        add("img", { src: "http://127.0.0.1:9/" });
        add("style", { textContent: "* { color: red }" });
        document.querySelector("h1").setAttribute("style", "color: red");
        try { add("script", { textContent: "document.title = 'ours'" }); } catch { }
        try { document.body.innerHTML += "<b>"; } catch { }
        fetch("http://127.0.0.1:9/").catch(() => {});
    })"""
    with opened(chromium, written["resumed"][0]) as report:
        title = report.page.title()
        blocked = report.page.evaluate(tries)
        assert {"img-src", "style-src-elem", "style-src-attr", "connect-src"} <= set(blocked)
        assert "require-trusted-types-for" in blocked
        assert report.page.title() == title


@pytest.mark.parametrize("name", ["hostile", "runs"])
def test_hostile_text_is_shown_and_does_nothing(chromium, written, name):
    """Rows, file names and errors come from all over the world."""
    with opened(chromium, written[name][0]) as report:
        body = report.text("main")
        assert report.page.title() != "ours"
        assert report.page.locator("main script, main img").count() == 0
        assert "</script><script>document.title" in body
        assert "\\u202e" in body
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u0000-\u0008]", body)


def test_a_row_of_a_megabyte_is_cut(chromium, written):
    """The checkpoint keeps 4 KiB of it, and the page a thousand characters."""
    file, report = written["hostile"]
    assert file.stat().st_size < 200_000
    assert report.dead_letters.groups[0].rows == 1
    with opened(chromium, file) as page:
        assert "characters)" in page.text("#dead-letters pre")


def test_every_chart_is_drawn_from_the_right_numbers(chromium, written):
    """The sums of what is drawn are the totals of the run."""
    file, report = written["resumed"]
    with opened(chromium, file) as one:
        drawn = one.page.evaluate("""() => ({
            rate: charts.drawn.rate.data, lanes: charts.map.time, histogram: charts.drawn.histogram.data,
            states: charts.map.map.states, rows: charts.map.map.rows_in,
        })""")
    step = drawn["lanes"]["step"]
    assert sum(y or 0 for y in drawn["rate"][1]) * step == pytest.approx(
        report.totals.rows_in, 1e-3
    )
    assert sum(drawn["histogram"][1]) == len(report.documents.sentinels)
    assert sum(drawn["rows"]) == report.totals.rows_in
    assert drawn["states"] == "".join(shard.state for shard in report.shards)
    assert sum(drawn["lanes"]["blocks"]["shards"]) == len(report.documents.sentinels)
    assert len(drawn["lanes"]["workers"]) == 6


COLORS = """(selector) => [...document.querySelectorAll(selector)].map((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const counts = {};
    for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] < 255) continue;
        const color = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
        counts[color] = (counts[color] ?? 0) + 1;
    }
    return counts;
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_has_pixels_in_its_colours(chromium, written, scheme):
    """A canvas that stayed blank has no error."""
    with opened(chromium, written["resumed"][0], color_scheme=scheme) as report:
        color = "(name) => { const p = document.createElement('p'); p.style.color = kit.color(name); document.body.append(p); return getComputedStyle(p).color; }"
        now, before, failed = (report.page.evaluate(color, n) for n in ("now", "before", "failed"))
        for place in ("#rate", "#lanes", "#histogram"):
            (counts,) = report.page.evaluate(COLORS, f"{place} canvas")
            assert counts.get(now, 0) > 100, place
        (lanes,) = report.page.evaluate(COLORS, "#lanes canvas")
        assert lanes[before] > 100
        assert lanes[failed] > 20
        (cells,) = report.page.evaluate(COLORS, "#map")
        assert min(cells[now], cells[before]) > 10_000
        assert cells[failed] > 100


def test_a_page_that_is_open_follows_scheme_and_width(chromium, written):
    """The evening comes, the window is made narrow."""
    with opened(chromium, written["resumed"][0], color_scheme="light") as report:
        light = report.page.evaluate(COLORS, "canvas")
        report.page.emulate_media(color_scheme="dark")
        report.until("kit.color('page') === '#14171a'")
        dark = report.page.evaluate(COLORS, "canvas")
        assert all(max(a, key=a.get) != max(b, key=b.get) for a, b in zip(light, dark, strict=True))
        report.page.set_viewport_size({"width": 500, "height": 900})
        fits = "[...document.querySelectorAll('canvas')].every((one) => one.getBoundingClientRect().right <= 500)"
        report.until(fits)


def test_the_map_is_walked_with_the_keyboard(chromium, written):
    """Arrows move, Home and End jump; what is under the cursor is read out."""
    with opened(chromium, written["resumed"][0]) as report:
        page, says = report.page, lambda: report.text("#map-details")
        while page.evaluate("document.activeElement.id") != "map":
            page.keyboard.press("Tab")
        assert says().startswith("Shard 0: committed earlier")
        page.keyboard.press("ArrowRight")
        assert says().startswith("Shard 1:")
        columns = page.evaluate("charts.map.columns")
        page.keyboard.press("ArrowDown")
        assert says().startswith(f"Shard {1 + columns}:")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert says().startswith("Shard 0:")
        page.keyboard.press("End")
        assert says().startswith("Shard 599: pending")
        assert page.get_attribute("#map-details", "aria-live") == "polite"


def test_a_sign_of_the_legend_leads_to_the_next_such_shard(chromium, written):
    """Two failed shards among ten thousand are found without looking for them."""
    with opened(chromium, written["resumed"][0]) as report:
        for shard in (*FAILED, FAILED[0]):
            report.page.click("button.failed")
            assert report.text("#map-details").startswith(f"Shard {shard}: failed")
            assert "ValueError: cannot be read" in report.text("#map-details")
        assert report.page.is_disabled("button.damaged")


def test_what_is_under_the_pointer_is_said(chromium, written):
    """On the map and on the charts."""
    with opened(chromium, written["resumed"][0]) as report:
        report.page.hover("#map", position={"x": 5, "y": 5})
        assert re.match(
            r"Shard 0: .* rows in, .* session 1, .* UTC · .*part-00000", report.text("#map-details")
        )
        for place, words in (
            ("#rate", "rows a second"),
            ("#lanes", "shard"),
            ("#histogram", "shards"),
        ):
            report.page.hover(f"{place} .u-over", position={"x": 120, "y": 60})
            report.until(
                f"document.querySelector('{place}').parentElement.querySelector('.now-at').textContent"
            )
            assert words in report.text(f"figure:has({place}) .now-at")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_the_screen(chromium, written, name):
    """A phone at 3 a.m.; tables scroll within themselves."""
    with opened(chromium, written[name][0], width=320) as report:
        for width in (320, 375, 768, 1280):
            report.page.set_viewport_size({"width": width, "height": 900})
            widest = "document.documentElement.scrollWidth"
            report.until(f"{widest} === {width} && innerWidth === {width}")


BOXES = """() => [...document.querySelectorAll("#totals tr")].map((row) =>
    [...row.cells].map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        const { left, right } = range.getBoundingClientRect();
        return [left, right];
    }))"""


@pytest.mark.parametrize("width", [375, 1280])
def test_batches_stand_side_by_side(chromium, written, width):
    """No hash runs into the next, and on a phone both are on the screen."""
    with opened(chromium, written["batches"][0], width=width) as report:
        for cells in report.page.evaluate(BOXES):
            for (_, right), (left, _) in pairwise(box for box in cells if box[1] > box[0]):
                assert right <= left
            assert cells[-1][1] <= width


def test_kinds_of_failure_show_that_they_open(chromium, written):
    """By a triangle, which turns; on a phone each count stands beside its share."""
    turned = "getComputedStyle(document.querySelector('#dead-letters summary'), '::before').content"
    with opened(chromium, written["hostile"][0], width=375) as report:
        shut = report.page.evaluate(turned)
        report.page.click("#dead-letters summary")
        assert {shut, report.page.evaluate(turned)} == {'"▸"', '"▾"'}
        count, share = (
            report.page.locator(f"#dead-letters summary > span >> nth={n}").bounding_box()
            for n in (0, 1)
        )
        assert abs(count["y"] - share["y"]) < 5


TEXTS = """() => {
    const seen = [];
    for (const element of document.querySelectorAll("main *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility()) continue;
        let behind = element;
        while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        seen.push([element.textContent.slice(0, 40), getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]);
    }
    return seen;
}"""


def luminance(color):
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["resumed", "hostile", "runs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_both_schemes(chromium, written, name, scheme):
    """WCAG AA: a contrast of 4.5."""
    with opened(chromium, written[name][0], color_scheme=scheme) as report:
        seen = report.page.evaluate(TEXTS)
        assert len(seen) > 20
        assert [text for text, ink, behind in seen if contrast(ink, behind) < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_signs_of_the_map_stand_out_in_both_schemes(chromium, written, scheme):
    """WCAG AA for what is no text: a contrast of 3; the two greens differ from each other as much."""
    script = """() => Object.fromEntries(["card", "now", "before", "at-work", "pending", "failed", "damaged"].map((name) => {
        const p = document.createElement("p");
        p.style.color = kit.color(name);
        document.body.append(p);
        return [name, getComputedStyle(p).color];
    }))"""
    with opened(chromium, written["resumed"][0], color_scheme=scheme) as report:
        colors = report.page.evaluate(script)
    for name in ("now", "at-work", "pending", "failed", "damaged"):
        assert contrast(colors[name], colors["card"]) >= 3, name
    assert contrast(colors["now"], colors["before"]) >= 2.5


def test_without_scripts_the_essentials_are_there(chromium, written):
    """RunVerdict, totals, dead letters, sessions and commands stand in the page itself."""
    with opened(chromium, written["hostile"][0], java_script_enabled=False) as report:
        page = report.page
        for place in (
            "h1",
            "#totals dd",
            "#dead-letters summary",
            "#sessions table",
            "#commands code",
        ):
            assert page.locator(place).first.is_visible(), place
        page.click("#dead-letters summary")  # the element itself opens, without a script
        assert page.is_visible("#dead-letters pre")
        assert page.locator("button.copy:visible").count() == 0
        assert "none failed" not in report.text("h1")


def test_a_command_is_copied(chromium, written):
    """The line to paste, exactly as it is."""
    with opened(
        chromium, written["resumed"][0], permissions=["clipboard-read", "clipboard-write"]
    ) as report:
        report.page.click("#verdict .command >> nth=0 >> button")
        report.until("document.querySelector('#verdict button.copy').textContent === 'Copied'")
        copied = report.page.evaluate("navigator.clipboard.readText()")
        assert copied == report.text("#verdict .command code")


def test_nothing_moves_for_those_who_want_no_motion(chromium, written):
    """No transition, no animation, at any element."""
    moving = "[...document.querySelectorAll('*')].filter((one) => { const s = getComputedStyle(one); return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0; }).length"
    with opened(chromium, written["resumed"][0], reduced_motion="reduce") as report:
        assert report.page.evaluate(moving) == 0


def test_it_can_be_printed(chromium, written):
    """On paper there is nothing to press, and every kind of failure is open."""
    with opened(chromium, written["hostile"][0]) as report:
        report.page.emulate_media(media="print")
        report.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert report.page.locator("button.copy:visible").count() == 0
        assert report.page.locator("details.group:not([open])").count() == 0
        assert len(report.page.pdf()) > 10_000


def test_ten_thousand_shards_are_small_and_soon_ready(chromium, folder):
    """At most 500 KiB, and less than two seconds of work for the browser."""
    sessions = [OnPaper(3_000, workers=16), OnPaper(3_000, workers=16), OnPaper(3_500, workers=20)]
    report = _on_paper(folder, "large", sessions, shards=10_000, fails=0.05, quarantined=(9_800,))
    file = folder / "large.html"
    file.write_text(report.to_html(), "utf-8")

    assert file.stat().st_size <= 500 * 1024
    # Its own time on the processor: that of a clock says more of the machine's other users.
    with opened(chromium, file) as one:
        session = one.page.context.new_cdp_session(one.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        one.page.reload()
        one.until("document.documentElement.dataset.ready !== undefined")
        metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        assert metrics["TaskDuration"] < 2
        assert one.page.evaluate("charts.map.count") == 10_000
        assert one.said == []
