"""Read one expression from tokens and evaluate it while reading, with the units that ordinary prose puts in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labeling.arithmetic import (
    Polynomial,
    UnreadableError,
    Value,
    add,
    choose,
    divide,
    factorial,
    multiply,
    power,
    root,
    variable,
)
from labeling.number_tails import AFTER_OPERAND, mixed_part, unit_words
from labeling.tokens import Token, number

MAX_DEPTH = 20

STANDARD = 0
PERCENT_IS_A_UNIT = 1
DIVIDE_LAST = 2
SCALES_ARE_UNITS = 4
ROUND_BRACKETS_ARE_REMARKS = 8
STYLES = (PERCENT_IS_A_UNIT, DIVIDE_LAST, SCALES_ARE_UNITS, ROUND_BRACKETS_ARE_REMARKS)
"""Other readings that people use. A claim that is right under one of them is not called wrong."""

_SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "dozens": 12,
    "万": 10**4,
    "亿": 10**8,
}
_FUNCTION_LETTERS = frozenset("fghpqFGHPQRSTCV")


class Reader:
    """Reads one expression. After `read`, the attributes say what was met on the way.

    Attributes:
        position: Index of the token after the expression.
        operations: Operators met, written or implied.
        units: Unit words met, lower case.
        decimals: Most decimal places of any literal.
        first: Value of the first literal.
        literals: Number of literals.
        ambiguous: Whether people would read it in more than one way.
    """

    __slots__ = (
        "ambiguous",
        "decimals",
        "depth",
        "first",
        "literals",
        "operations",
        "position",
        "style",
        "tokens",
        "units",
    )

    def __init__(self, tokens: Sequence[Token], style: int = STANDARD) -> None:
        self.tokens = tokens
        self.style = style

    def read(self, position: int) -> Value:
        """Read from `position` as far as an expression goes.

        Raises:
            UnreadableError: There is no expression, or an operand of it is not understood.
        """
        self.position = position
        self.operations = self.decimals = self.depth = self.literals = 0
        self.units: list[str] = []
        self.first: Value | None = None
        self.ambiguous = False
        return self._sum()

    def _peek(self) -> str:
        """Kind of the next token; a `$` between an operand and an operator is stepped over."""
        tokens, position = self.tokens, self.position
        if position >= len(tokens):
            return ""
        kind = tokens[position].kind
        if kind == "$" and position + 1 < len(tokens) and tokens[position + 1].kind in AFTER_OPERAND:
            self.position += 1
            return tokens[position + 1].kind
        return kind

    def _sum(self) -> Value:
        self._deeper()
        value = self._product()
        while (kind := self._peek()) == "+" or kind == "-":
            self.position += 1
            self.operations += 1
            right = self._product()
            value = add(value, right if kind == "+" else multiply(-1, right))
        self.depth -= 1
        return value

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")

    def _product(self) -> Value:
        value = self._signed()
        divided = False
        divisor: Value = 1
        while True:
            kind = self._peek()
            if kind == "*" or kind == "/":
                self.position += 1
                right = self._signed()
            elif self._is_of(divided):
                self.position += 1
                kind, right = "*", self._signed()
            elif self._joins(kind):
                kind, right = "*", self._factor()
                self.ambiguous = self.ambiguous or divided
            else:
                break
            self.operations += 1
            if kind == "/":
                divided = True
            if divided and self.style & DIVIDE_LAST:
                divisor = multiply(divisor, right)
            else:
                value = multiply(value, right) if kind == "*" else divide(value, right)
        return divide(value, divisor) if divisor != 1 else value

    def _is_of(self, divided: bool) -> bool:
        """Whether "of" here multiplies: after a percentage or a fraction and before a number."""
        tokens, position = self.tokens, self.position
        if position + 1 >= len(tokens) or tokens[position].value not in ("of", "的"):
            return False
        after = tokens[position + 1].kind
        if after == "$" and position + 2 < len(tokens):
            after = tokens[position + 2].kind
        chinese = tokens[position].value == "的"
        return after in "n(f" and (chinese or divided or tokens[position - 1].kind in "%)")

    def _joins(self, kind: str) -> bool:
        """Whether the next operand is multiplied without a sign, as in 2x, 2(3), (2)(3), or a number before a root."""
        if kind not in ("(", "v", "f", "p"):
            return False
        last, token = self.tokens[self.position - 1], self.tokens[self.position]
        glued = token.start == last.end
        if kind == "(":
            if last.kind == "v":
                if not glued or last.value in _FUNCTION_LETTERS:
                    raise UnreadableError("a function")
                return True
            if not glued and self._at_remark():
                return False
            if not glued and last.kind not in ")!":
                self.ambiguous = True
                return not self.style & ROUND_BRACKETS_ARE_REMARKS and last.kind == "n" and token.value == "("
            return last.kind in "n)!" and token.value != "{"
        if kind == "v":
            return (glued or last.value == "}" or last.kind == "p") and last.kind in "nv)p"
        return last.kind in "nv)p"

    def _at_remark(self) -> bool:
        following = self.tokens[self.position + 1 : self.position + 2]
        return bool(following) and following[0].kind == "w"

    def _signed(self) -> Value:
        while self._peek() == "$":
            self.position += 1
        kind = self._peek()
        if kind == "-" or kind == "+":
            self._deeper()
            self.position += 1
            start = self.position
            value = self._signed()
            self.depth -= 1
            if kind == "+":
                return value
            if any(token.kind == "^" for token in self.tokens[start : self.position]):
                self.ambiguous = True  # -3^2 is written for (-3)^2 too
            return multiply(-1, value)
        return self._factor()

    def _factor(self) -> Value:
        value = self._operand()
        while True:
            kind = self._peek()
            if kind == "^":
                value = self._raised(value)
            elif kind == "!":
                if self.tokens[self.position].start != self.tokens[self.position - 1].end:
                    return value
                self.position += 1
                self.operations += 1
                self.ambiguous = self.ambiguous or self._peek() in ("", "N", "$", "w")  # or an exclamation
                value = factorial(value)
            elif kind == "%":
                self.position += 1
                if not self.style & PERCENT_IS_A_UNIT:
                    value = divide(value, 100)
                self.units.append("%")
            elif kind == "d":
                self.position += 1
                self.units.append("degrees")
            else:
                break
        return self._scaled(value) if kind == "w" or kind == "/" or kind == "v" or kind == "(" else value

    def _raised(self, value: Value) -> Value:
        self.position += 1
        tokens = self.tokens
        if self._peek() == "d" or (
            self._peek() == "("
            and self.position + 2 < len(tokens)
            and tokens[self.position + 1].kind == "d"
            and tokens[self.position + 2].kind == ")"
        ):
            self.position += 1 if self._peek() == "d" else 3
            self.units.append("degrees")
            return value
        self.operations += 1
        if self._peek() in ("-", "+"):
            sign = -1 if self._peek() == "-" else 1
            self.position += 1
            return power(value, multiply(sign, self._operand()))
        self._deeper()
        if (
            len(tokens[self.position].value if self._peek() == "n" else "") > 1
            and tokens[self.position - 1].value == "^"
        ):
            self.ambiguous = True  # LaTeX takes one digit without braces
        exponent = self._operand()
        if self._peek() == "^":
            exponent = self._raised(exponent)
        self.depth -= 1
        return power(value, exponent)

    def _operand(self) -> Value:
        if self.position >= len(self.tokens):
            raise UnreadableError("nothing there")
        token = self.tokens[self.position]
        kind = token.kind
        if kind == "n":
            return self._literal(token)
        if kind == "(":
            return self._bracketed()
        if kind == "v":
            self.position += 1
            return variable(token.value)
        if kind == "f":
            return self._function(token)
        if kind == "p":
            self.position += 1
            return math.pi
        raise UnreadableError(f"operand {token.value!r}")

    def _literal(self, token: Token) -> Value:
        self.position += 1
        value, decimals = number(token.value)
        self.decimals = max(self.decimals, decimals)
        self.literals += 1
        if self.first is None:
            self.first = value
        if isinstance(value, int) and (found := mixed_part(self.tokens, self.position)):
            part, self.position = found
            self.ambiguous = True
            return add(value, part)
        return value

    def _bracketed(self) -> Value:
        self.position += 1
        value = self._sum()
        if self._peek() == "$":
            self.position += 1
        if self._peek() != ")":
            raise UnreadableError("bracket")
        self.position += 1
        return value

    def _argument(self) -> Value:
        """A braced argument, or the one digit or letter that LaTeX takes without braces."""
        if self._peek() == "(":
            return self._bracketed()
        return self._operand()

    def _function(self, token: Token) -> Value:
        self._deeper()
        value = self._function_value(token)
        self.depth -= 1
        return value

    def _function_value(self, token: Token) -> Value:
        self.position += 1
        self.operations += 1
        if token.value.endswith(("√", "sqrt")):
            degree: Value = 2
            if self.position < len(self.tokens) and self.tokens[self.position].value == "[":
                degree = self._bracketed()
            return root(self._argument(), degree)
        if self._peek() == "n":  # \frac12: one token of two digits
            digits = self.tokens[self.position].value
            if len(digits) != 2 or not digits.isdigit():
                raise UnreadableError("fraction")
            self.position += 1
            self.literals += 1
            top, bottom = int(digits[0]), int(digits[1])
            return choose(top, bottom) if token.value.endswith("binom") else divide(top, bottom)
        top_value = self._argument()
        bottom_value = self._argument()
        if token.value.endswith("binom"):
            return choose(top_value, bottom_value)
        return divide(top_value, bottom_value)

    def _scaled(self, value: Value) -> Value:
        """Step over the unit words after an operand if the expression goes on behind them."""
        tokens = self.tokens
        if self.position < len(tokens) and (scale := _SCALES.get(tokens[self.position].value)):
            self.position += 1
            if not self.style & SCALES_ARE_UNITS:
                value = multiply(value, scale)
        if found := unit_words(tokens, self.position):
            units, self.position = found
            self.units += units
        return value


def is_closed(value: Value) -> bool:
    """Whether an expression has a number as its value."""
    return not isinstance(value, Polynomial)
