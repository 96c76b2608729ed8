"""Fields of the spec that 0.1.0 had no choice of: absent at their value of then, so that fingerprints stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vidxfer.pipeline.cache.read.agree import AGREE, expect_agree, facts_of_spec
from vidxfer.pipeline.cache.spec import BEFORE_THERE_WAS_A_CHOICE, CacheSpec
from vidxfer.pipeline.errors import CacheError, CacheMismatch

OTHER = {"interpolation": "bicubic", "antialias": True, "resize_mode": "squash", "class_row": "mean", "left_out": 4}


@pytest.mark.parametrize("name", OTHER)
def test_a_field_is_stored_only_where_it_is_not_what_it_always_was(world: Any, name: str) -> None:
    plain = replace(world.SPEC, crops=1)
    assert name in BEFORE_THERE_WAS_A_CHOICE
    assert name not in plain.to_dict()
    other = replace(plain, **{name: OTHER[name]})
    assert other.to_dict() == {**plain.to_dict(), name: OTHER[name]}
    assert CacheSpec.from_dict(other.to_dict()) == other
    assert CacheSpec.from_dict(plain.to_dict()) == plain
    assert len({plain.fingerprint, other.fingerprint}) == len({plain.tokens_fingerprint, other.tokens_fingerprint}) == 2
    assert other.passport["tokens"][name] == OTHER[name]
    with pytest.raises(CacheMismatch, match=name):
        plain.expect_same(other, "zarr/train")


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("pair", [name for name, row in AGREE.items() if "pixel_mean" in row.must])
def test_who_is_compared_in_mean_and_std_is_compared_in_the_rest_of_the_picture(
    world: Any, name: str, pair: str
) -> None:
    plain = replace(world.SPEC, crops=1)
    first, second = facts_of_spec(plain), facts_of_spec(replace(plain, **{name: OTHER[name]}))
    with pytest.raises(CacheMismatch, match=name):
        expect_agree(pair, "here", first, second)
    expect_agree(pair, "here", second, second)


@pytest.mark.parametrize(
    "wrong",
    [{"interpolation": "nearest"}, {"antialias": 1}, {"resize_mode": "longest"}, {"class_row": ""}, {"left_out": -1}],
)
def test_what_a_stranger_may_say_of_them_is_checked(world: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(CacheError, match=next(iter(wrong))):
        CacheSpec.from_dict({**world.SPEC.to_dict(), **wrong})


def test_three_crops_of_a_squashed_picture_are_refused(world: Any) -> None:
    with pytest.raises(ValueError, match=r"crops=3.*seen whole"):
        replace(world.SPEC, view_kind="test", crops=3, resize_mode="squash")
