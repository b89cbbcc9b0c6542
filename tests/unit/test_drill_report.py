"""Reports say what was measured, open anywhere, and cannot be broken by what a server answered."""

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operations.drills import picture, report, terminal, verdict
from operations.drills.result import DrillResult
from tests.unit.drills import drilled, record, records, refused, streamed

EVIL = '<script>alert("x")</script>&]]>'


def evil() -> DrillResult:
    """Names and errors as an attacker would choose them."""
    result = drilled("kill", notes=[EVIL], machine=EVIL, victim=EVIL, model=EVIL, stack=EVIL)
    return replace(result, requests=[*result.requests, record(12.0, cluster=EVIL), refused(13.0, 503, error=EVIL)], clusters=["us-east", EVIL])


def figure(result: DrillResult) -> str:
    return picture.of(result, verdict.analysed(result))


class TestReport:
    def test_shows_goals_figures_settings_and_the_picture_of_every_run(self) -> None:
        results = [drilled("kill", machine="2 cores", computed={"added": 0.111}, objectives={"failoverSeconds": 1.5}), streamed(drilled("hang"))]
        text = report.report([report.examined(each) for each in results])
        assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {terminal.headline(each)}" for each in results]
        for shown in ("failed before the first token", "at most 111 ms", "objective failoverSeconds", "2 cores", "mock engine: counts instead of computing"):
            assert shown in text
        assert "](kill-us-west-tiny-chat-stand-in-1.svg)" in text

    def test_escapes_what_comes_from_outside(self) -> None:
        assert "<script" not in report.report([report.examined(evil())])


class TestPicture:
    @pytest.mark.parametrize("case", ["kill", "all-down", "gateway"])
    def test_is_xml_whose_every_text_is_escaped(self, case: str) -> None:
        ET.fromstring(figure(replace(evil(), case=case)))

    def test_shows_axes_with_units_the_marks_and_every_region(self) -> None:
        texts = [each.text or "" for each in ET.fromstring(figure(drilled("kill"))).iter("{http://www.w3.org/2000/svg}text")]
        for wanted in ("seconds since the fault", "latency", "us-east", "us-west", "kill", "recovery begins", "can serve again", "0 of 300 requests failed"):
            assert wanted in texts
        assert "requests per 100 ms" in texts

    def test_marks_each_bar_with_a_failure_however_many_requests_there_are(self) -> None:
        without, one = drilled("kill"), drilled("kill")
        one = replace(one, requests=[*one.requests, refused(12.0, 503)])
        assert figure(without).count('<path class="bad"') == 0
        # In the whole run and in the bars around the fault.
        assert figure(one).count('<path class="bad"') == 2

    @pytest.mark.parametrize(
        "result",
        [
            drilled("kill", requests=[], marks={}, samples=[]),
            drilled("kill", requests=[record(0.0)], marks={}),
            drilled("kill", requests=[refused(0.0, 503)], marks={"fault": 0.0}),
            drilled("kill", requests=records(0, 3), marks={"fault": 1.0}),
            drilled("kill", requests=[record(place / 10, cluster=f"region-{place % 9}") for place in range(100)]),
        ],
    )
    def test_can_be_drawn_of_anything(self, result: DrillResult) -> None:
        drawn = figure(result)
        ET.fromstring(drawn)
        assert "nan" not in drawn
        assert "inf" not in drawn.replace("line", "")

    def test_draws_a_long_run_in_wider_bars(self) -> None:
        day = drilled("kill", requests=records(0, 2000, step=2), marks={"fault": 1000.0})
        drawn = figure(day)
        assert "requests per 20 s" in drawn
        assert len(drawn) < 200_000

    @given(st.floats(0.01, 1e6))
    def test_scales_end_above_the_highest_bar_and_not_far_above(self, value: float) -> None:
        top = picture.nice_top(value)
        assert top >= value - 1e-6
        assert top <= max(1.0, 2 * value)

    @given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=20))
    def test_decades_hold_every_latency(self, values: list[float]) -> None:
        low, high = picture.latency_decades(values)
        assert 10.0**low <= min(values) * 1.001
        assert 10.0**high >= max(values) * 0.999
        assert high - low >= 2


class TestTerminal:
    def test_headline_tells_the_engine_and_whose_settings(self) -> None:
        assert terminal.headline(drilled("kill")) == "kill of us-west: tiny-chat on mock engines, 300 requests at 10/s through us-east, eu-west"
        other = replace(streamed(drilled("drain", backend="vllm", settings="published")))
        assert terminal.headline(other).endswith("tiny-chat on vLLM, 300 streams at 10/s through us-east, eu-west, settings as published in articles")

    def test_the_conclusion_counts_the_goals(self) -> None:
        assert report.table([drilled("drain")]).endswith("passed: 4 of 4 goals kept")
        lost = replace(drilled("drain"), requests=[*drilled().requests, refused(12.0, 503)])
        assert report.table([lost]).endswith("FAILED: 3 of 4 goals kept")
        assert report.table([replace(lost, settings="published")]).endswith("for comparison: 3 of 4 goals kept")


class TestFiles:
    def test_every_result_has_its_records_and_its_picture_beside_one_report(self, tmp_path: Path) -> None:
        results = [drilled("kill"), drilled("kill", run=2), drilled("kill", settings="published"), streamed(drilled("kill"))]
        written = report.write(results, tmp_path / "new" / "folder")
        assert len(written) == len(set(written)) == 2 * len(results) + 2
        assert DrillResult.from_json((tmp_path / "new/folder/kill-us-west-tiny-chat-stand-in-2.json").read_text()).run == 2
        summaries = json.loads((tmp_path / "new/folder/summary.json").read_text())
        assert [each["verdict"]["passed"] for each in summaries] == [True] * 4
        assert "requests" not in summaries[0]
        assert summaries[0]["figures"]["phases"]["fault"]["requests"] == 100

    def test_no_name_leads_out_of_the_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "here"
        written = report.write([drilled("kill", model="../../there", victim="/")], folder)
        assert {path.resolve().parent for path in written} == {folder.resolve()}

    def test_a_wrong_record_is_told_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="outcome: must be there"):
            report.write([drilled("kill"), drilled("kill", requests=[{"n": 1, "due": 1.0}])], tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestMarkdown:
    def rows(self, *results: DrillResult) -> list[list[str]]:
        lines = report.markdown(results).splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ") and "---" not in line][1:]

    def test_runs_alike_are_one_row_with_the_worst_of_them(self) -> None:
        bad = drilled("kill", run=2, requests=[*drilled().requests, refused(12.0, 503), record(13.0, 0.4)])
        [row] = self.rows(drilled("kill"), bad, drilled("kill", run=3))
        assert row[:3] == ["kill", "mock engine, 10/s", "0, 1, 0 of 202"]
        assert row[-1] == "not kept: failed before the first token"

    def test_published_settings_stand_below_and_are_judged_by_nobody(self) -> None:
        lost = drilled("kill", settings="published", requests=[*drilled().requests, refused(12.0, 503)])
        rows = self.rows(lost, drilled("hang"), drilled("kill"))
        assert [row[0] for row in rows] == ["kill", "kill, published settings", "hang"]
        assert rows[1][-1] == "for comparison"

    def test_what_one_run_could_not_measure_is_not_hidden_by_the_others(self) -> None:
        [row] = self.rows(drilled("kill"), drilled("kill", samples=[]))
        assert row[6] == "not measured"

    def test_a_cell_cannot_break_the_table(self) -> None:
        assert {len(row) for row in self.rows(drilled("kill"), drilled("hang"))} == {11}
        assert report.markdown([evil()]).count("\n") == 4

    def test_goes_between_the_marks_of_a_document_and_changes_nothing_else(self) -> None:
        document = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nend\n"
        once = report.into_document(document, "new")
        assert once == f"# Title\n\n{report.BEGIN}\nnew\n{report.END}\n\nend\n"
        assert report.into_document(once, "new") == once

    @pytest.mark.parametrize("document", ["", report.BEGIN, f"{report.END}\n{report.BEGIN}", f"{report.BEGIN}{report.BEGIN}{report.END}"])
    def test_a_document_without_its_marks_is_refused(self, document: str) -> None:
        with pytest.raises(ValueError, match="once each and in this order"):
            report.into_document(document, "new")


class TestCommand:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        path = tmp_path / "kill.json"
        path.write_text(drilled("kill").to_json())
        return path

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["report", *map(str, arguments)])
        return report.main()

    def test_prints_the_table(self, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(monkeypatch, saved) == 0
        assert capsys.readouterr().out.startswith("| case | engine, load |")

    def test_reads_a_file_of_several_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        several = tmp_path / "several.json"
        several.write_text(f"[{drilled('kill').to_json()}, {drilled('kill', run=2).to_json()}]")
        assert self.run(monkeypatch, several) == 0
        assert "0, 0 of 200" in capsys.readouterr().out

    def test_writes_picture_and_document(self, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        document = tmp_path / "doc.md"
        document.write_text(f"a\n{report.BEGIN}\n{report.END}\nb\n")
        svg = tmp_path / "r.svg"
        assert self.run(monkeypatch, saved, "--picture", svg, "--document", document) == 0
        text = document.read_text()
        assert "| kill | mock engine, 10/s |" in text
        assert "latency over time](r.svg)\n\n| case |" in text
        ET.parse(svg)

    def test_of_many_results_a_killed_region_is_pictured(self) -> None:
        results = [drilled("drain"), streamed(drilled("kill")), drilled("kill", settings="published"), drilled("kill", run=2), drilled("hang")]
        assert report.pictured(results) is results[3]
        assert report.pictured(results[:1]) is results[0]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("{}", "version: must be `1`"),
            ("no", "not the result of a drill"),
            ('{"version": 1}', "not the result"),
            ("[{}, 1]", "version: must be `1`"),
            ("[", "Expecting value"),
            (None, "No such file"),
        ],
    )
    def test_a_file_that_is_no_result_is_named(
        self, text: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "wrong.json"
        if text is not None:
            path.write_text(text)
        assert self.run(monkeypatch, path) == 1
        error = capsys.readouterr().err
        assert "wrong.json" in error
        assert told in error
        assert "Traceback" not in error

    def test_a_document_without_marks_leaves_every_file_as_it_was(
        self, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        document = tmp_path / "doc.md"
        document.write_text("nothing\n")
        assert self.run(monkeypatch, saved, "--picture", tmp_path / "r.svg", "--document", document) == 1
        assert not (tmp_path / "r.svg").exists()
        assert document.read_text() == "nothing\n"
        assert "must have the lines" in capsys.readouterr().err


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 200), st.floats(0.5, 50))
def test_no_length_of_a_run_makes_a_picture_fail(count: int, rate: float) -> None:
    result = drilled("kill", requests=[record(place / rate) for place in range(count)], marks={"fault": count / rate / 2})
    ET.fromstring(figure(result))
    assert math.isfinite(verdict.analysed(result).requests)
