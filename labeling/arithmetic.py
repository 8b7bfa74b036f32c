"""Bounded exact arithmetic for the claims of a step: integers, fractions, polynomials; floats only for roots and pi.

Every operation has a bound on the size of its result, so no text can make it slow. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

MAX_BITS = 2048
MAX_TERMS = 60
MAX_DEGREE = 12

Monomial = tuple[tuple[str, int], ...]
"""Variables with their exponents, sorted by name; () is the constant."""


class UnreadableError(Exception):
    """The expression is beyond what is checked here: too large, undefined, or of a kind that is not known."""


@dataclass(frozen=True)
class Polynomial:
    """A polynomial with rational coefficients; zero coefficients are not kept."""

    terms: tuple[tuple[Monomial, Fraction], ...]

    @property
    def is_constant(self) -> bool:
        """Whether no variable is left."""
        return all(monomial == () for monomial, _ in self.terms)


Number = int | Fraction | float
Value = Number | Polynomial


def variable(name: str) -> Polynomial:
    """The polynomial that is one variable."""
    return Polynomial(((((name, 1),), Fraction(1)),))


def add(a: Value, b: Value) -> Value:
    """Sum."""
    if isinstance(a, Polynomial) or isinstance(b, Polynomial):
        terms = dict(_terms(a))
        for monomial, coefficient in _terms(b):
            terms[monomial] = terms.get(monomial, Fraction(0)) + coefficient
        return _polynomial(terms)
    return _bounded(a + b)


def multiply(a: Value, b: Value) -> Value:
    """Product."""
    if isinstance(a, Polynomial) or isinstance(b, Polynomial):
        terms: dict[Monomial, Fraction] = {}
        left, right = _terms(a), _terms(b)
        if len(left) * len(right) > MAX_TERMS * 4:
            raise UnreadableError("too many terms")
        for monomial_a, coefficient_a in left:
            for monomial_b, coefficient_b in right:
                powers = dict(monomial_a)
                for name, power in monomial_b:
                    powers[name] = powers.get(name, 0) + power
                product = tuple(sorted(powers.items()))
                terms[product] = terms.get(product, Fraction(0)) + coefficient_a * coefficient_b
        return _polynomial(terms)
    return _bounded(a * b)


def divide(a: Value, b: Value) -> Value:
    """Quotient; the divisor must be a number.

    Raises:
        UnreadableError: Division by zero or by a polynomial.
    """
    if isinstance(b, Polynomial):
        raise UnreadableError("division by a polynomial")
    if b == 0:
        raise UnreadableError("division by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else Fraction(a, b)
    if isinstance(a, Polynomial):
        if isinstance(b, float):
            raise UnreadableError("irrational coefficient")
        return multiply(a, 1 / Fraction(b))
    return _bounded(a / b)


def power(base: Value, exponent: Value) -> Value:
    """Power with a bounded exponent; a fractional exponent or an irrational base gives a float.

    Raises:
        UnreadableError: Undefined, complex, or too large.
    """
    if isinstance(exponent, Polynomial):
        raise UnreadableError("variable exponent")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        exponent = int(exponent)
    if isinstance(base, Polynomial):
        if not isinstance(exponent, int) or not 0 <= exponent <= MAX_DEGREE:
            raise UnreadableError("exponent of a polynomial")
        result: Value = 1
        for _ in range(exponent):
            result = multiply(result, base)
        return result
    if isinstance(base, float) or not isinstance(exponent, int):
        return _float_power(base, exponent)
    if base == 0 and exponent <= 0:
        raise UnreadableError("power of zero")
    size = max(abs(base.numerator), base.denominator).bit_length()
    if size * abs(exponent) > MAX_BITS:
        raise UnreadableError("too large")
    if exponent < 0:
        return Fraction(base) ** exponent
    return base**exponent


def root(value: Value, degree: Value = 2) -> Value:
    """Real root: exact where it is rational, else a float.

    Raises:
        UnreadableError: Not a positive integer degree up to 12, or a root of a negative number or of a polynomial.
    """
    if not isinstance(degree, int) or not 1 < degree <= MAX_DEGREE or isinstance(value, Polynomial) or value < 0:
        raise UnreadableError("root")
    if isinstance(value, float):
        return _bounded(value ** (1 / degree))
    top, bottom = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
    if top is not None and bottom is not None:
        return Fraction(top, bottom) if bottom != 1 else top
    return _bounded(_as_float(value) ** (1 / degree))


def factorial(value: Value) -> Value:
    """Factorial of an integer from 0 to 200."""
    if not isinstance(value, int) or not 0 <= value <= 200:
        raise UnreadableError("factorial")
    return math.factorial(value)


def choose(n: Value, k: Value) -> Value:
    """Binomial coefficient of integers up to 200."""
    if not (isinstance(n, int) and isinstance(k, int) and 0 <= k <= n <= 200):
        raise UnreadableError("binomial")
    return math.comb(n, k)


def _float_power(base: Number, exponent: Number) -> Value:
    if base <= 0:
        raise UnreadableError("power")
    try:
        return _bounded(float(base) ** float(exponent))
    except OverflowError:
        raise UnreadableError("too large") from None


def _whole_root(value: int, degree: int) -> int | None:
    if degree == 2:
        found = math.isqrt(value)
    else:
        if value.bit_length() > 200:
            return None
        found = round(value ** (1 / degree))
    return found if found**degree == value else None


def _as_float(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UnreadableError("too large") from None


def _bounded(value: Number) -> Number:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnreadableError("too large")
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise UnreadableError("too large")
        return value
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise UnreadableError("too large")
    return value


def _terms(value: Value) -> tuple[tuple[Monomial, Fraction], ...]:
    if isinstance(value, Polynomial):
        return value.terms
    if isinstance(value, float):
        raise UnreadableError("irrational coefficient")
    return (((), Fraction(value)),)


def _polynomial(terms: dict[Monomial, Fraction]) -> Value:
    kept = tuple(sorted((monomial, coefficient) for monomial, coefficient in terms.items() if coefficient))
    if not kept:
        return 0
    if len(kept) > MAX_TERMS or any(sum(power for _, power in monomial) > MAX_DEGREE for monomial, _ in kept):
        raise UnreadableError("too many terms")
    if any(max(c.numerator.bit_length(), c.denominator.bit_length()) > MAX_BITS for _, c in kept):
        raise UnreadableError("too large")
    if len(kept) == 1 and kept[0][0] == ():
        value = kept[0][1]
        return int(value) if value.denominator == 1 else value
    return Polynomial(kept)
