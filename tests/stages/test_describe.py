"""From choices to what a split stores: a bank holds a multiple of what a head uses, in training views only."""

from __future__ import annotations

import pytest

from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.describe import frames_to_store
from vidxfer.stages.settings import CacheChoice


@pytest.mark.parametrize(("bank", "dense"), [(None, 16), (8, 16), (16, 32), (24, 48)])
def test_a_bank_stores_a_multiple_of_what_a_head_uses(bank: int | None, dense: int) -> None:
    assert frames_to_store(CacheChoice(dense_frames=16, alpha=2, bank_frames=bank)) == dense


@pytest.mark.parametrize("bank", [1, 7, 12])
def test_a_bank_that_is_no_multiple_is_refused_with_the_numbers(bank: int) -> None:
    with pytest.raises(UsageError, match=rf"--bank-frames {bank} must be a multiple of the 8 frames"):
        frames_to_store(CacheChoice(dense_frames=16, alpha=2, bank_frames=bank))
