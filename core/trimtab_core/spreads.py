"""Three unknowns and how uncertain they are: the little linear algebra of ``learning``, without a library.

A row has one number for each unknown; a matrix is symmetric. Must not know what the unknowns are.
"""

from __future__ import annotations

Row = tuple[float, float, float]
Matrix = tuple[Row, Row, Row]
LEAST_VARIANCE = 1e-8
"""Nothing is ever known better than that: rounding must not make a variance negative."""


def diagonal(deviation: Row) -> Matrix:
    """The covariance of unknowns that tell nothing of each other, from their standard deviations."""
    a, b, c = (value * value for value in deviation)
    return (a, 0.0, 0.0), (0.0, b, 0.0), (0.0, 0.0, c)


def dot(one: Row, other: Row) -> float:
    """The sum of the products."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def apply(matrix: Matrix, row: Row) -> Row:
    """The matrix times a column."""
    return dot(matrix[0], row), dot(matrix[1], row), dot(matrix[2], row)


def quadratic(matrix: Matrix, row: Row) -> float:
    """Variance of the sum that the row makes of the unknowns."""
    return dot(row, apply(matrix, row))


def reduced(matrix: Matrix, gain: Row, spread: Row) -> Matrix:
    """The covariance after a measurement: what it told is taken off, and it stays symmetric.

    Args:
        matrix: before.
        gain: by how much each unknown moved for an innovation of 1.
        spread: the matrix times the row that was measured.
    """

    def cell(i: int, j: int) -> float:
        value = matrix[i][j] - (gain[i] * spread[j] + gain[j] * spread[i]) / 2
        return max(value, LEAST_VARIANCE) if i == j else value

    a, b, c = ((cell(i, 0), cell(i, 1), cell(i, 2)) for i in range(3))
    return a, b, c
