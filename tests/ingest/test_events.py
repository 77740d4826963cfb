"""Sources to events: nothing lost, nothing twice, nothing half-written."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import ConfigError, DataError
from penchant.ingest import events
from penchant.ingest.clean import text_key
from penchant.ingest.events import BATCH_ROWS, ingest
from penchant.ingest.mapping import Mapping
from penchant.ingest.readers import BadRow, Row, rows
from penchant.records import EVENTS, REJECTS

COLUMNS = {
    "event_id": "id",
    "user_id": "user",
    "occurred_at": "at",
    "action": "did",
    "title": "title",
    "body": "body",
    "rating": "stars",
    "amount": "paid",
}
HEADER = "id,user,at,did,title,body,stars,paid"
GOOD = "1,ann,2026-03-01T12:00:00Z,View,Trail shoe,,,\n"


def source(*files: str, columns: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A source of those files; a column that is None is left out."""
    return {"files": files, "columns": {key: value for key, value in (COLUMNS | (columns or {})).items() if value is not None}} | more


def mapping(*files: str, **more: Any) -> Mapping:
    """A mapping of one source, `shop`."""
    return Mapping.model_validate({"latest": "2027-01-01", "sources": {"shop": source(*files, **more)}})


def two_sources() -> Mapping:
    """`shop` from shop.csv, then `social` from social.jsonl."""
    return Mapping.model_validate({"latest": "2027-01-01", "sources": {"shop": source("shop.csv"), "social": source("social.jsonl")}})


def posts(*numbers: int) -> str:
    """JSON Lines of posts with those ids."""
    return "".join(
        json.dumps({"id": n, "user": "bob", "at": "2026-03-02T00:00:00Z", "did": "post", "body": f"cat {n}"}) + "\n" for n in numbers
    )


def written(output: Path) -> list[dict[str, Any]]:
    """The events, with the contract's schema."""
    table = pq.read_table(output / "events.parquet")
    assert table.schema == EVENTS
    rows_of_table: list[dict[str, Any]] = table.to_pylist()
    return rows_of_table


def rejected(output: Path) -> list[dict[str, str]]:
    """The rejects."""
    with (output / "rejects.csv").open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        assert reader.fieldnames == REJECTS.names
        return list(reader)


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_balanced(summary: dict[str, dict[str, int]], output: Path) -> None:
    """Rows = events + rejects for every source, in the summary and in the files alike."""
    assert json.loads((output / "summary.json").read_text(encoding="utf-8")) == summary
    kept = Counter(row["source"] for row in written(output))
    thrown = Counter(row["source"] for row in rejected(output))
    for name, counts in summary.items():
        assert counts.get("rows", 0) == kept[name] + thrown[name]
        assert counts.get("events", 0) == kept[name]
        assert sum(count for what, count in counts.items() if what.startswith("rejected: ")) == thrown[name]


def test_a_row_becomes_an_event_of_the_contract(tmp_path: Path) -> None:
    row = '7,ann,2026-03-01T13:00:00+01:00,Review," Trail  <b>shoe</b> ",mail ann@example.com,4,59.90\n'
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{row}", encoding="utf-8")
    summary = ingest(mapping("shop.csv"), tmp_path, tmp_path / "out")
    assert summary == {"shop": {"rows": 1, "events": 1}}
    assert written(tmp_path / "out") == [
        {
            "event_id": "shop:7",
            "user_id": "ann",
            "occurred_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
            "source": "shop",
            "action": "review",
            "title": "Trail shoe",
            "body": "mail [email]",
            "item_id": None,
            "rating": 4.0,
            "amount": 59.9,
            "currency": None,
            "language": None,
            "text_key": text_key("Trail shoe\nmail [email]"),
        }
    ]
    assert rejected(tmp_path / "out") == []


def test_every_reject_has_its_line_its_column_and_its_reason(tmp_path: Path) -> None:
    at = "2026-03-01T12:00:00Z"
    lines = [
        HEADER,  # 1
        f"1,ann,{at},view,shoe,,,",
        f"2,,{at},view,shoe,,,",
        f"3,ann,{at},,shoe,,,",
        "",  # 5: blank, no row
        f"4,ann,{at},view,<b></b>,,,",
        "5,ann,soon,view,shoe,,,",
        "6,ann,1970-01-01,view,shoe,,,",
        f"7,ann,{at},view,shoe,,6,",
        f"8,ann,{at},view,shoe,,,-1",  # 10
        f"9,ann,{at},view",
        f'10,ann,{at},view,"open,,,',
        f'11,ann,{at},view,"two\nlines",,,',  # 13 and 14
        f"1,bob,{at},view,another,,,",  # 15
        f"12,ann,{at},view,shoe,,five,",
    ]
    (tmp_path / "shop.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    summary = ingest(mapping("shop.csv"), tmp_path, tmp_path / "out")
    assert [(row["row"], row["column"], row["value"]) for row in rejected(tmp_path / "out")] == [
        ("3", "user_id", ""),
        ("4", "action", ""),
        ("6", "title", ""),
        ("7", "at", "soon"),
        ("8", "at", "1970-01-01"),
        ("9", "stars", "6"),
        ("10", "paid", "-1"),
        ("11", "", f"9,ann,{at},view"),
        ("12", "", f'10,ann,{at},view,"open,,,'),
        ("15", "event_id", "shop:1"),
        ("16", "stars", "five"),
    ]
    reasons = [row["reason"] for row in rejected(tmp_path / "out")]
    starts = [
        "user_id: missing",
        "action: missing",
        "text: missing",
        "occurred_at: not a time",
        "occurred_at: outside 1990-01-01",
        "rating: outside 1 to 5",
    ]
    starts += ["amount: negative", "4 columns where the header has 8", "not CSV: ", "duplicate event", "rating: not a number"]
    assert [reason[: len(start)] for reason, start in zip(reasons, starts, strict=True)] == starts
    assert {(row["source"], row["file"]) for row in rejected(tmp_path / "out")} == {("shop", "shop.csv")}
    assert [row["event_id"] for row in written(tmp_path / "out")] == ["shop:1", "shop:11"]
    assert summary["shop"]["rows"] == 13
    assert_balanced(summary, tmp_path / "out")


def test_a_column_that_no_line_of_json_has_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text(posts(1) + "{broken\n" + posts(2).replace('"did"', '"paid": 5, "did"'), encoding="utf-8")
    found = Mapping.model_validate(
        {"latest": "2027-01-01", "sources": {"shop": source("a.jsonl", columns={"rating": "strs", "title": None, "currency": "boddy"})}}
    )
    assert ingest(found, tmp_path, tmp_path / "out")["shop"]["events"] == 2
    assert [each for each in caplog.messages if "no row has" in each] == [
        "source 'shop': rating: no row has a column 'strs'; did you mean 'user'?",
        "source 'shop': currency: no row has a column 'boddy'; did you mean 'body' or 'did'?",
    ]


def test_parquet_and_json_rejects_count_from_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(posts(1) + "\n{broken\n" + posts(2) + "[]\n", encoding="utf-8")
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    users = [*"abcdef", None, "h"]  # the seventh row has no user
    pq.write_table(
        pa.table(
            {"id": range(8), "user": users, "at": [moment] * 8, "did": ["view"] * 8, "title": ["x"] * 8}
            | {each: [None] * 8 for each in ("body", "stars", "paid")}
        ),
        tmp_path / "b.parquet",
    )
    summary = ingest(mapping("*.jsonl", "b.parquet"), tmp_path, tmp_path / "out")
    # b.parquet's ids 1 and 2, its second and third rows, were in a.jsonl
    assert [(row["file"], row["row"]) for row in rejected(tmp_path / "out")] == [
        ("a.jsonl", "3"),
        ("a.jsonl", "5"),
        ("b.parquet", "2"),
        ("b.parquet", "3"),
        ("b.parquet", "7"),
    ]
    assert summary["shop"]["rows"] == 4 + 8
    assert_balanced(summary, tmp_path / "out")


def test_a_mapped_column_that_a_table_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,usr,at,did,title,body,stars,payd\n" + GOOD, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        ingest(mapping("a.csv"), tmp_path, tmp_path / "out")
    assert "user_id: no column 'user'; did you mean 'usr'?" in str(caught.value)
    assert "amount: no column 'paid'; did you mean 'payd'" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_patterns_reach_into_folders(tmp_path: Path) -> None:
    for day in ("day=1", "day=2"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "part.jsonl").write_text(posts(int(day[-1])), encoding="utf-8")
    assert ingest(mapping("day=*/part.jsonl"), tmp_path, tmp_path / "out")["shop"]["events"] == 2


def test_a_wrong_type_in_one_row_costs_that_row(tmp_path: Path) -> None:
    good: dict[str, Any] = {"user": "ann", "at": "2026-03-01", "did": "view", "title": "shoe"}
    wrong: list[dict[str, Any]] = [
        {"user": ["a"]},
        {"title": {"en": "x"}},
        {"at": [1]},
        {"paid": 10**400},
        {"user": "\ud83d"},
        {"at": "0001-01-01"},
        {"stars": True, "paid": "NaN"},
    ]
    lines = [good | {"id": n} | (wrong[n // 2] if n % 2 else {}) for n in range(2 * len(wrong))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    zoned = mapping("a.jsonl").model_copy(update={"timezone": "Asia/Shanghai"})
    summary = ingest(zoned, tmp_path, tmp_path / "out")
    assert [row["event_id"] for row in written(tmp_path / "out")] == [f"shop:{n}" for n in range(0, 14, 2)]
    assert [row["row"] for row in rejected(tmp_path / "out")] == [str(n) for n in range(2, 15, 2)]
    assert_balanced(summary, tmp_path / "out")


def test_a_duplicate_counts_once_within_its_source(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{GOOD}{GOOD}", encoding="utf-8")
    (tmp_path / "copy.csv").write_text(f"{HEADER}\n{GOOD}", encoding="utf-8")
    (tmp_path / "social.jsonl").write_text(posts(1), encoding="utf-8")
    both = {"shop": source("shop.csv", "copy.csv"), "social": source("social.jsonl")}
    summary = ingest(Mapping.model_validate({"latest": "2027-01-01", "sources": both}), tmp_path, tmp_path / "out")
    assert summary == {"shop": {"rows": 3, "events": 1, "rejected: duplicate event": 2}, "social": {"rows": 1, "events": 1}}
    assert [row["event_id"] for row in written(tmp_path / "out")] == ["shop:1", "social:1"]


def test_a_rejected_row_does_not_use_up_its_id(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n1,ann,never,view,shoe,,,\n{GOOD}", encoding="utf-8")
    ingest(mapping("shop.csv"), tmp_path, tmp_path / "out")
    assert [row["event_id"] for row in written(tmp_path / "out")] == ["shop:1"]


def test_without_ids_equal_events_are_one_and_any_difference_makes_another(tmp_path: Path) -> None:
    base = {"user": "ann", "at": "2026-03-01T12:00:00Z", "did": "view", "title": "shoe", "stars": 3, "paid": 1}
    changes: list[dict[str, Any]] = [
        {"user": "bob"},
        {"at": "2026-03-01T12:00:01Z"},
        {"did": "like"},
        {"title": "boot"},
        {"stars": 4},
        {"paid": 2},
    ]
    same = [{}, {"at": "2026-03-01T13:00:00+01:00"}, {"did": "VIEW"}, {"title": "  shoe "}, {"stars": "3.0"}]
    lines = [base | change for change in [*changes, *same]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    summary = ingest(mapping("a.jsonl", columns={"event_id": None}), tmp_path, tmp_path / "out")
    assert summary["shop"]["events"] == len(changes) + 1
    assert summary["shop"]["rejected: duplicate event"] == len(same) - 1
    assert len({row["event_id"] for row in written(tmp_path / "out")}) == len(changes) + 1


def test_personal_data_is_masked_in_events_and_in_rejects(tmp_path: Path) -> None:
    body = "ann@example.com 4111 1111 1111 1111 030 901820"
    lines = [f"1,ann,2026-03-01,post,,{body},,", f"2,ann,2026-03-01,post,,x,{body},", f"3,{body}"]
    (tmp_path / "shop.csv").write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    german = mapping("shop.csv").model_copy(update={"phone_region": "DE"})
    ingest(german, tmp_path, tmp_path / "out")
    assert [row["body"] for row in written(tmp_path / "out")] == ["[email] [card] [phone]"]
    assert [row["value"] for row in rejected(tmp_path / "out")] == ["[email] [card] [phone]", "3,[email] [card] [phone]"]


def test_local_times_take_the_zone_of_the_mapping_over_a_clock_change(tmp_path: Path) -> None:
    local = ["2026-10-25T01:30:00", "2026-10-25T02:30:00", "2026-10-25T03:30:00", "2026-03-29T02:30:00"]
    lines = [f"{n},ann,{at},view,shoe,,," for n, at in enumerate(local)]
    (tmp_path / "shop.csv").write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    berlin = mapping("shop.csv").model_copy(update={"timezone": "Europe/Berlin"})
    ingest(berlin, tmp_path, tmp_path / "out")
    # +2 until 03:00 on 25 October, +1 after; an hour shown twice is its first, one never shown has the offset before
    expected = [(2026, 10, 24, 23, 30), (2026, 10, 25, 0, 30), (2026, 10, 25, 2, 30), (2026, 3, 29, 1, 30)]
    assert [row["occurred_at"] for row in written(tmp_path / "out")] == [datetime(*each, tzinfo=UTC) for each in expected]


def test_a_catalogue_joins_by_key_whatever_its_type(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"sku": 7, "name": "Trail shoe"}\n{"sku": null, "name": "nothing"}\n', encoding="utf-8")
    keys: list[Any] = ["7", 7, 7.0, 8, None, "", [7]]
    lines = [{"id": n, "user": "ann", "at": "2026-03-01", "did": "view", "sku": key} for n, key in enumerate(keys)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    joined = mapping("a.jsonl", columns={"title": "item.name"}, items={"file": "items.jsonl", "key": "sku"})
    summary = ingest(joined, tmp_path, tmp_path / "out")
    assert [(row["event_id"], row["title"]) for row in written(tmp_path / "out")] == [(f"shop:{n}", "Trail shoe") for n in range(3)]
    assert [row["row"] for row in rejected(tmp_path / "out")] == ["4", "5", "6", "7"]
    assert_balanced(summary, tmp_path / "out")


@pytest.mark.parametrize(
    ("catalogue", "expected"),
    [
        ('{"id": 7}\n', "items.jsonl:1: no column 'sku'"),
        ('{"sku": 1}\n{oops\n', "items.jsonl:2: not JSON"),
        ('{"sku": [7]}\n', "items.jsonl:1: sku"),
    ],
)
def test_a_broken_catalogue_stops_the_run_with_its_place(tmp_path: Path, catalogue: str, expected: str) -> None:
    (tmp_path / "items.jsonl").write_text(catalogue, encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(posts(1), encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        ingest(mapping("a.jsonl", items={"file": "items.jsonl", "key": "sku"}), tmp_path, tmp_path / "out")


def test_patterns_read_in_order_of_name_and_must_match(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        (tmp_path / f"part-{number}.jsonl").write_text(posts(number), encoding="utf-8")
    (tmp_path / "odd[1].jsonl").write_text(posts(9), encoding="utf-8")
    ingest(mapping("part-*.jsonl", "odd[1].jsonl"), tmp_path, tmp_path / "out")
    assert [row["event_id"] for row in written(tmp_path / "out")] == ["shop:1", "shop:2", "shop:3", "shop:9"]
    with pytest.raises(ConfigError, match=r"source 'shop': no file matches .*none-\*\.csv"):
        ingest(mapping("part-*.jsonl", "none-*.csv"), tmp_path, tmp_path / "out")


def test_sources_without_rows_give_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(HEADER, encoding="utf-8")
    (tmp_path / "social.jsonl").write_bytes(b"")
    summary = ingest(two_sources(), tmp_path, tmp_path / "out")
    assert summary == {"shop": {}, "social": {}}
    assert written(tmp_path / "out") == []


def test_nothing_is_lost_where_batches_meet(tmp_path: Path) -> None:
    count = BATCH_ROWS + 3
    (tmp_path / "shop.csv").write_text(
        f"{HEADER}\n" + "".join(f"{n},ann,2026-03-01,view,shoe,,,\n" for n in range(count)), encoding="utf-8"
    )
    summary = ingest(mapping("shop.csv"), tmp_path, tmp_path / "out")
    assert summary == {"shop": {"rows": count, "events": count}}
    assert [row["event_id"] for row in written(tmp_path / "out")] == [f"shop:{n}" for n in range(count)]


def test_a_second_run_gives_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{GOOD}{GOOD}2,bob,2026-03-02,like,boot,,,\nbroken\n", encoding="utf-8")
    (tmp_path / "social.jsonl").write_text(posts(1, 2, 1), encoding="utf-8")
    ingest(two_sources(), tmp_path, tmp_path / "first")
    ingest(two_sources(), tmp_path, tmp_path / "second")
    once = content_of(tmp_path / "first")
    assert set(once) == {"events.parquet", "rejects.csv", "summary.json"}
    assert content_of(tmp_path / "second") == once
    ingest(two_sources(), tmp_path, tmp_path / "second")  # over an earlier output
    assert content_of(tmp_path / "second") == once


def fail_with_damaged_file(folder: Path) -> None:
    """A gzip file cut off after thousands of good rows."""
    (folder / "social.jsonl").write_bytes(gzip.compress(posts(*range(20_000)).encode())[:-4000])


def fail_with_missing_file(folder: Path) -> None:
    """A file that went away."""
    (folder / "social.jsonl").unlink()


@pytest.mark.parametrize("fail", [fail_with_damaged_file, fail_with_missing_file])
def test_a_failed_run_leaves_the_earlier_output_and_nothing_else(tmp_path: Path, fail: Any) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{GOOD}", encoding="utf-8")
    (tmp_path / "social.jsonl").write_text(posts(1), encoding="utf-8")
    output = tmp_path / "results" / "out"
    ingest(two_sources(), tmp_path, output)
    before = content_of(output)
    fail(tmp_path)
    with pytest.raises((DataError, ConfigError), match="social.jsonl"):
        ingest(two_sources(), tmp_path, output)
    assert content_of(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_an_interrupt_half_way_leaves_the_earlier_output_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{GOOD}", encoding="utf-8")
    (tmp_path / "social.jsonl").write_text(posts(*range(100)), encoding="utf-8")
    output = tmp_path / "results" / "out"
    ingest(two_sources(), tmp_path, output)
    before = content_of(output)

    def interrupted(path: Path) -> Iterator[tuple[int, Row | BadRow]]:
        for place, row in rows(path):
            if place == 50:
                raise KeyboardInterrupt
            yield place, row

    monkeypatch.setattr(events, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest(two_sources(), tmp_path, output)
    assert content_of(output) == before
    with pytest.raises(KeyboardInterrupt):
        ingest(two_sources(), tmp_path, output.with_name("new"))
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_an_output_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(f"{HEADER}\n{GOOD}", encoding="utf-8")
    with pytest.raises(DataError, match="holds shop.csv"):
        ingest(mapping("shop.csv"), tmp_path, tmp_path)
    with pytest.raises(DataError, match="shop.csv: a file"):
        ingest(mapping("shop.csv"), tmp_path, tmp_path / "shop.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["shop.csv"]


PIECE = st.sampled_from(
    [",", '"', ";", "\r", "\n", "\t", "\ufeff", "\udce9", "é", "😀", "a", "1", " ", "<b>", "a@b.de", "{", GOOD, GOOD[:-1]]
)


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(st.lists(PIECE, max_size=12).map("".join), max_size=12))
def test_rows_are_events_plus_rejects_over_any_broken_csv(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("broken")
    text = f"{HEADER}\n{GOOD}" + "".join(f"{line}\n" for line in lines)
    (folder / "shop.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    summary = ingest(mapping("shop.csv"), folder, folder / "out")
    assert_balanced(summary, folder / "out")
    assert written(folder / "out")[0]["event_id"] == "shop:1"
    places = [int(row["row"]) for row in rejected(folder / "out")]
    assert places == sorted(set(places))
    assert all(3 <= place <= text.count("\n") + text.count("\r") + 1 for place in places)  # after the header and the good line


UNQUOTED = st.lists(st.sampled_from(["", "1", "ann", "2026-03-01", "view", "é", "😀", "\udce9", " ", ";", "\t", "<b>"]), max_size=9).map(
    ",".join
)


@settings(max_examples=30, deadline=None)
@given(lines=st.lists(UNQUOTED | st.just(GOOD.strip()), max_size=12), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_without_quotes_every_line_is_a_row_under_its_own_number(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str
) -> None:
    folder = tmp_path_factory.mktemp("unquoted")
    (folder / "shop.csv").write_bytes(end.join([HEADER, *lines]).encode("utf-8", "surrogateescape"))
    summary = ingest(mapping("shop.csv"), folder, folder / "out")
    assert_balanced(summary, folder / "out")
    kept = lines.index(GOOD.strip()) + 2 if GOOD.strip() in lines else None  # the first good line; the others repeat its id
    assert [row["event_id"] for row in written(folder / "out")] == (["shop:1"] if kept else [])
    expected = [place for place, line in enumerate(lines, 2) if line and place != kept]
    assert [int(row["row"]) for row in rejected(folder / "out")] == expected
