import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.bundleserver.conditional import Known, Tag, wait_of

H1, H2 = "a" * 64, "b" * 64
CURRENT = Tag("k1", 7, H1, 3)


def test_a_tag_reads_as_it_is_written() -> None:
    assert str(CURRENT) == f'"k1.7.{H1}.3"'
    assert Tag.parse(str(CURRENT)) == CURRENT


@pytest.mark.parametrize("text", [f'W/"k1.7.{H1}.3"', f"k1.7.{H1}.3", f'  "k1.7.{H1}.3" ', f'w/"k1.7.{H1}.3"'])
def test_weak_and_unquoted_forms_are_the_same_tag(text: str) -> None:
    assert Tag.parse(text) == CURRENT


@pytest.mark.parametrize(
    "text",
    ["", '""', '"7"', f'"k1.-7.{H1}.3"', f'"k1.7.{H1[:-1]}.3"', f'"k1.7.{H1}"', f'"k.1.7.{H1}.3"', f'"k1.{"9" * 19}.{H1}.3"',
     f'"k1.7.{H1.upper()}.3"', '"\x00"', f'"k1.\u0667.{H1}.3"'],
)  # fmt: skip
def test_junk_is_no_tag(text: str) -> None:
    assert Tag.parse(text) is None


@pytest.mark.parametrize(
    ("header", "lacks"),
    [
        ("", True),
        ('"something-else"', True),
        (str(CURRENT), False),
        (f'"junk", W/{CURRENT}, ,,"', False),
        (f'"k1.6.{H2}.9"', True),  # older
        (f'"k1.6.{H2}.9", {CURRENT}', False),  # superseded ones beside the present one
        (f'"k1.8.{H2}.0"', False),  # newer than ours: held
        (f'"k1.6.{H2}.0", "k1.8.{H2}.0"', False),
        (f'"k2.8.{H2}.0"', False),  # newer under another key: held as well
        (f'"k2.7.{H1}.3"', True),  # the same under another key has another signature
        (f'"k1.7.{H1}.2"', True),  # the same content with earlier times
        (f'"k1.7.{H1}.4"', False),  # with later times than ours
        (f'"k1.7.{H2}.3"', True),  # another content under our serial: ours is the recorded one
    ],
)
def test_what_a_client_lacks(header: str, lacks: bool) -> None:
    assert Known.parse(header).lacks(CURRENT) is lacks


def test_a_star_is_noticed_among_others() -> None:
    assert Known.parse('"x", *').anything
    assert not Known.parse('"*"').anything


def test_only_so_many_members_are_read() -> None:
    assert not Known.parse(",".join(['"x"'] * 64 + [str(CURRENT)])).tags
    assert Known.parse(",".join(['"x"'] * 63 + [str(CURRENT)])).tags == {CURRENT}


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("modes=snapshot,delta;wait=20", 20),
        ("wait=20", 20),
        ("respond-async, wait=5", 5),
        ('modes=snapshot;wait="7"', 7),
        ("Wait = 3", 3),
        ("wait=100000", 60),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=1e9", 0),
        ("await=20", 0),
        ("wait=20s", 0),
        ("modes=snapshot,delta", 0),
        ("", 0),
    ],
)
def test_how_long_a_client_would_wait(prefer: str, seconds: float) -> None:
    assert wait_of(prefer) == seconds


@given(st.text(max_size=300))
def test_no_header_breaks_the_readers(text: str) -> None:
    Known.parse(text).lacks(CURRENT)
    assert 0 <= wait_of(text) <= 60


@given(
    st.lists(
        st.builds(Tag, st.sampled_from(["k1", "k2"]), st.integers(0, 9), st.sampled_from([H1, H2]), st.integers(0, 3))
    )
)
def test_whoever_has_seen_a_higher_serial_lacks_nothing(tags: list[Tag]) -> None:
    known = Known.parse(", ".join(map(str, tags)))
    assert known.tags == set(tags)
    if any(tag.serial > CURRENT.serial for tag in tags):
        assert not known.lacks(CURRENT)
