"""What a link allows is counted right, and the better fixed setting is what is compared with."""

from benchmarks.clients import TUSPY
from benchmarks.families.adaptive import ADAPTIVE, FIXED, Against, Case, events
from benchmarks.link import Conditions
from benchmarks.report import Sample, rate
from benchmarks.units import MIB


def case(then: tuple[tuple[float, Conditions], ...] = ()) -> Case:
    return Case("name", "words", Conditions(whole=10 * MIB), 0, 0, 10 * MIB, then)


def test_the_seconds_that_a_link_needs() -> None:
    assert case().limit(50 * MIB) == 5.0
    slower = case(((2.0, Conditions(whole=MIB)), (7.0, Conditions(whole=10 * MIB))))
    assert slower.limit(20 * MIB) == 2.0
    assert slower.limit(25 * MIB) == 7.0
    assert slower.limit(35 * MIB) == 8.0
    assert Case("LAN", "", Conditions(), 0, 0, None).limit(MIB) is None


def test_what_gets_hardly_anywhere_sends_less() -> None:
    link = Case("name", "words", Conditions(), 8 * MIB, MIB, None, coarse=2 * MIB)
    assert [link.sends(client) for client in (ADAPTIVE, *FIXED, TUSPY)] == [8 * MIB, 8 * MIB, 2 * MIB, MIB]


def test_ratios_are_to_the_better_fixed_setting() -> None:
    table = Against("adaptive", "", (rate(),), base="")
    for client, seconds in zip(FIXED, (2.0, 1.0), strict=True):
        table.of("far", client.name).append(Sample(seconds, MIB))
    table.of("far", "holdfast adaptive").append(Sample(0.5, MIB))
    assert table.base_of("far") == FIXED[1].name


def test_events_are_read_among_other_lines() -> None:
    told = 'a warning\n{"event":"progress","state":"in_progress"}\n{"event":"done"}\n'
    assert [each["event"] for each in events(told)] == ["progress", "done"]
