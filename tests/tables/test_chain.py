"""Draws of codes column by column: known cells of later columns count as Bayes' rule says."""

import math

import pytest
import torch

from sklearn_si.tables._chain import draw_codes, draw_given, log_mass

# P(c_0 = 1), and P(c_1 = 1) given c_0.
FIRST, SECOND = 0.3, torch.tensor([0.2, 0.9])
# The log of how much more likely the value of column 1 is where c_0 = 1.
TOLD = 0.7
N = 20_000


class TwoColumns:
    """Exact where the cells before a column are known; of those behind it, it looks at the value alone."""

    def column(self, j, codes, values):
        p = torch.full((len(codes),), FIRST) if j == 0 else SECOND[codes[:, 0].clamp(min=0)]
        logit = torch.logit(p) + (TOLD * torch.isfinite(values[:, 0]) if j == 0 else 0)
        return torch.log_softmax(torch.stack([torch.zeros(len(codes)), logit], 1), 1)


def rows(*cells, value=math.nan):
    return torch.tensor([cells]).repeat(N, 1), torch.full((N, 1), value)


def draw(codes, values, forbidden=(), n_candidates=64):
    generator = torch.Generator().manual_seed(0)
    return draw_given(TwoColumns(), codes, values, range(2), generator, forbidden, n_candidates)


def share(drawn, j):
    return float((drawn[:, j] == 1).double().mean())


@pytest.mark.parametrize("c_1", [0, 1])
@pytest.mark.parametrize("value", [math.nan, 1.0])
def test_a_known_cell_of_a_later_column_counts_by_bayes_rule(c_1, value):
    drawn = draw(*rows(-1, c_1, value=value))
    odds = FIRST / (1 - FIRST) * (SECOND[1] / SECOND[0] if c_1 else (1 - SECOND[1]) / (1 - SECOND[0]))
    odds = float(odds) * (math.exp(TOLD) if value == value else 1.0)
    assert share(drawn, 0) == pytest.approx(odds / (1 + odds), abs=0.015)
    assert (drawn[:, 1] == c_1).all()


def test_one_candidate_is_a_draw_of_the_conditionals():
    assert share(draw(*rows(-1, 1), n_candidates=1), 0) == pytest.approx(FIRST, abs=0.015)


def test_codes_that_are_ruled_out_in_rows_count_as_a_known_cell():
    codes, values = rows(-1, -1)
    drawn = draw(codes, values, forbidden=[(), torch.tensor([[True, False]]).repeat(N, 1)])
    odds = FIRST * 0.9 / ((1 - FIRST) * 0.2)
    assert share(drawn, 0) == pytest.approx(odds / (1 + odds), abs=0.015)
    assert share(drawn, 1) == 1


@pytest.mark.parametrize("cells", [(-1, -1), (1, -1)])
def test_rows_of_which_the_first_cells_are_known_have_no_candidates(cells):
    """The chain and the conditionals are the same there, and so is the draw."""
    codes, values = rows(*cells)
    expected = draw_codes(TwoColumns(), codes, values, range(2), torch.Generator().manual_seed(0))
    assert torch.equal(draw(codes, values), expected)


def test_rows_of_several_patterns_are_drawn_each_by_its_own():
    codes = torch.tensor([[-1, 1], [-1, -1], [0, -1], [-1, 0]]).repeat(N // 4, 1)
    drawn = draw(codes, torch.full((N, 1), math.nan)).reshape(-1, 4, 2)
    odds = [FIRST * 0.9 / ((1 - FIRST) * 0.2), FIRST * 0.1 / ((1 - FIRST) * 0.8)]
    found = [share(drawn[:, k], 0) for k in (0, 1, 3)]
    assert found == pytest.approx([odds[0] / (1 + odds[0]), FIRST, odds[1] / (1 + odds[1])], abs=0.03)
    assert share(drawn[:, 2], 1) == pytest.approx(float(SECOND[0]), abs=0.03)


def test_the_mass_given_a_start_is_that_of_the_other_cells():
    codes, values = rows(1, 0)
    codes, values = codes[:3], values[:3]
    start = torch.tensor([[-1, -1], [1, -1], [1, 0]])
    expected = [math.log(FIRST) + math.log(0.1), math.log(0.1), 0.0]
    assert log_mass(TwoColumns(), codes, values, range(2), start).tolist() == pytest.approx(expected, rel=1e-5)
