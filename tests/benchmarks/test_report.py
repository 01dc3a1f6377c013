"""The arithmetic of the benchmarks: medians, ratios, percentiles, and the tables that are made of them."""

import json
from pathlib import Path

import pytest
from benchmarks import goals, page
from benchmarks.clients import HOLDFAST, SEQUENTIAL
from benchmarks.families import adaptive, downloads, limits, live, slow, trust
from benchmarks.peers import NGINX, TUSD_PEER, holdfast
from benchmarks.report import MEMORY, TRANSFER, Report, Sample, Table, cpu, median, number, percentile, rate, ratio
from benchmarks.units import GIB, MIB, parse_size, size_text
from hypothesis import given
from hypothesis import strategies as st


def samples(*seconds: float, work: float = 64 * MIB, cpu: float | None = 0.5) -> list[Sample]:
    return [Sample(each, work, cpu, 40 * MIB, 0.1) for each in seconds]


@pytest.fixture
def table() -> Table:
    made = Table("ingest", "Bytes in", TRANSFER, base="tusd")
    made.of("1 stream", "holdfast (os)").extend(samples(1.0, 0.5, 2.0))
    made.of("1 stream", "tusd").extend(samples(4.0, 2.0, 1.0, cpu=1.0))
    made.failures["1 stream", "rustus"] = "failed: answered 500 | no\nand more"
    made.of("1 stream", "rustus")
    made.facts = {"holdfast (os)": ("none", "xxh3-128"), "tusd": ("none", "none")}
    return made


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_rate_is_work_for_each_second_and_the_median_is_that_of_rates() -> None:
    assert median(samples(1.0, 0.5, 2.0), rate()) == 64.0
    assert median(samples(1.0, 0.5), rate()) == 96.0


def test_cpu_is_told_for_each_gibibyte() -> None:
    assert median(samples(1.0), cpu()) == 0.5 * GIB / (64 * MIB) == 8.0


def test_what_was_not_measured_every_time_has_no_median() -> None:
    assert median([*samples(1.0), *samples(1.0, cpu=None)], cpu()) is None
    assert median([], cpu()) is None


@pytest.mark.parametrize(
    ("value", "base", "told"), [(3.0, 2.0, 1.5), (None, 1.0, None), (1.0, None, None), (1.0, 0.0, None)]
)
def test_a_ratio_needs_both_sides(value: float | None, base: float | None, told: float | None) -> None:
    assert ratio(value, base) == told


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_with_its_share_at_or_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-3
    assert sum(value < found for value in values) <= share * len(values) + 1e-3


def test_percentiles_of_a_hundred_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1)) == (50, 99, 100)


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "-"), (0.0, "0.00"), (0.0123, "0.012"), (0.456, "0.46"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits_that_count(value: float | None, told: str) -> None:
    assert number(value) == told


def test_the_table_has_ratios_of_medians_to_its_base(table: Table) -> None:
    head, _, ours, theirs, failed = map(cells, table.markdown())
    named = dict(zip(head, ours, strict=True))
    assert (named["speed, ratio"], named["CPU of the server, ratio"]) == ("2.00", "0.50")
    assert named["speed, MiB/s"] == "64.0 (32.0-128)"
    assert (named["checksum"], named["peak memory, MiB"], named["rounds"]) == ("xxh3-128", "40.0", "3")
    assert dict(zip(head, theirs, strict=True))["speed, ratio"] == "1.00"
    assert len(failed) == len(head)
    assert "failed: answered 500 / no" in failed


def test_without_the_base_the_first_row_is_compared_with(table: Table) -> None:
    table.base = "somebody else"
    head, _, ours, theirs, _ = map(cells, table.markdown())
    assert dict(zip(head, ours, strict=True))["speed, ratio"] == "1.00"
    assert dict(zip(head, theirs, strict=True))["speed, ratio"] == "0.50"


def test_every_sample_is_kept_as_json(table: Table) -> None:
    told = json.loads(json.dumps(table.document()))
    assert [each["seconds"] for each in told["samples"]["1 stream"]["holdfast (os)"]] == [1.0, 0.5, 2.0]
    assert told["failures"][0]["row"] == "rustus"


def test_the_page_keeps_the_words_and_replaces_the_figures(table: Table, tmp_path: Path) -> None:
    """Only plots that a section shows are copied; old ones go."""
    results, docs = tmp_path / "results", tmp_path / "docs"
    pictures = results / page.PICTURES
    for folder in (pictures, docs / page.PICTURES):
        folder.mkdir(parents=True)
    for name in ("ingest-1.svg", "stray-1.svg"):
        (pictures / name).write_text("<svg/>")
    (docs / page.PICTURES / "old-1.svg").write_text("<svg/>")
    (docs / "benchmarks.md").write_text(f"before\n{page.BEGIN}\nold figures\n{page.END}\nafter\n")
    report = Report("ingest", "Bytes in", "What is measured.", [table], size=GIB, rounds=3)
    report.save(results, report.markdown({"ingest": [("benchmarks/ingest-1.svg", "speed")]}), tmp_path)
    assert page.publish(results, ["ingest", "memory"], docs) == 0
    written = (docs / "benchmarks.md").read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old figures" not in written
    assert "## Bytes in" in written
    assert "SIZE=1GiB, ROUNDS=3" in written
    assert "cores" in written
    assert [path.name for path in (docs / page.PICTURES).iterdir()] == ["ingest-1.svg"]


def test_without_results_nothing_is_written(tmp_path: Path) -> None:
    assert page.publish(tmp_path, ["ingest"], tmp_path / "docs") == 1
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("text", ["1GiB", "64MiB", "4KiB", "17B"])
def test_sizes_are_read_as_they_are_written(text: str) -> None:
    assert size_text(parse_size(text)).replace(" ", "") == text


@pytest.mark.parametrize("text", ["", "GiB", "1.5GiB", "-1", "1TiB", "one"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_memory_is_in_mebibytes() -> None:
    assert MEMORY.of(Sample(1.0, memory=3 * MIB)) == 3
    assert MEMORY.of(Sample(1.0)) is None


def test_aims_are_told_whether_they_are_reached_or_not(table: Table) -> None:
    """One is reached, one is missed, the others were not measured."""
    rows = table.samples["1 stream"]
    rows[goals.OS] = rows.pop("holdfast (os)")
    told = {line.split(" | ")[0]: line for line in goals.table({"ingest": {"tables": [table.document()]}})}
    assert told["| one stream: speed, of tusd's"].endswith("| at least 2 x | 2.00 x | yes |")
    assert told["| one stream: CPU, of tusd's"].endswith("| at most 0.4 x | 0.50 x | no |")
    assert told["| eight streams: speed, of tusd's"].endswith("| at least 1.2 x | - | - |")
    assert told["| memory of the client"].endswith("| - | - |")


@pytest.mark.parametrize("goal", goals.GOALS, ids=lambda goal: goal.words)
def test_every_aim_names_rows_that_there_are(goal: goals.Goal, tmp_path: Path) -> None:
    """A goal asks for a table, a case and rows; each is spelled in the family that makes it."""
    asked: list[tuple[str, str]] = []

    class Asking(goals.Results):
        def median(self, table: str, case: str, row: str, of: object) -> float | None:
            asked.append((table, row))
            return 1.0

        def peak(self, table: str) -> float | None:
            asked.append((table, ""))
            return 1.0

    assert goal.measured(Asking({})) == 1.0
    names = {
        holdfast(kind, digest=digest, workers=n).name
        for kind in ("os", "ack")
        for digest in (False, True)
        for n in (1, 2)
    }
    names |= {peer.name for peer in (TUSD_PEER, NGINX)} | {""}
    names |= {f"{holdfast('os').name}{live.STREAM}", *live.BESIDE}
    names |= {downloads.OURS_16, downloads.ARIA2_16}
    names |= {f"{client.name} to {server}" for client in (HOLDFAST, *SEQUENTIAL) for server in ("holdfast", "tusd")}
    names |= {client.name for client in (adaptive.ADAPTIVE, *adaptive.FIXED)}
    names |= {*trust.rows(tmp_path), *limits.rows(), slow.ALONE, slow.BESIDE}
    assert {row for _, row in asked} <= names
    families = Path(goals.__file__).parent / "families"
    for table, _ in asked:
        assert (families / f"{table.partition('-')[0]}.py").exists()
