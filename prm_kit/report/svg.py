"""Small plots as inline SVG: axes, lines, bands, dots, bars. Colours are CSS classes, so they follow the theme.

All text is escaped. Every plot has a title and a description for those who cannot see it, and every mark a title.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

Point = tuple[float, float]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 42


class Plot:
    """A plot area with linear axes; marks are added, then `markup` gives the SVG.

    Args:
        title: What the plot shows; read out, and shown on hover.
        x: Domain of the horizontal axis, low below high.
        y: Domain of the vertical axis, low below high.
        x_label: Written under the axis.
        y_label: Written beside the axis.
        size: Width and height in pixels at 100 %.
        left: Room for the labels of the vertical axis, in pixels.
    """

    def __init__(
        self,
        title: str,
        x: Point,
        y: Point,
        x_label: str = "",
        y_label: str = "",
        size: tuple[int, int] = (380, 260),
        left: int = _LEFT,
    ) -> None:
        self.title, self.x, self.y, self.x_label, self.y_label = title, x, y, x_label, y_label
        self.width, self.height = size
        self.left = left
        self._marks: list[Markup] = []

    def at_x(self, value: float) -> float:
        """Pixel of a value on the horizontal axis."""
        low, high = self.x
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - _RIGHT), 1)

    def at_y(self, value: float) -> float:
        """Pixel of a value on the vertical axis."""
        low, high = self.y
        return round(self.height - _BOTTOM - (value - low) / (high - low) * (self.height - _TOP - _BOTTOM), 1)

    def x_ticks(self, ticks: Sequence[tuple[float, str]]) -> None:
        """Name places on the horizontal axis."""
        for value, text in ticks:
            self._add(
                '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>',
                self.at_x(value),
                self.height - _BOTTOM + 16,
                text,
            )

    def y_ticks(self, ticks: Sequence[tuple[float, str]], grid: bool = True) -> None:
        """Name places on the vertical axis, with a grid line each."""
        for value, text in ticks:
            y = self.at_y(value)
            if grid:
                self._add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', self.left, self._end, y, y)
            self._add('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', self.left - 7, y + 4, text)

    def line(self, points: Sequence[Point], kind: str) -> None:
        """Join points with a line of the CSS class `kind`."""
        path = " ".join(f"{self.at_x(x)},{self.at_y(y)}" for x, y in points)
        self._add('<polyline class="line {}" points="{}"/>', kind, path)

    def band(self, lows: Sequence[Point], highs: Sequence[Point], kind: str) -> None:
        """Fill between two lines over the same places."""
        path = " ".join(f"{self.at_x(x)},{self.at_y(y)}" for x, y in [*lows, *reversed(highs)])
        self._add('<polygon class="band {}" points="{}"/>', kind, path)

    def dot(self, x: float, y: float, kind: str, title: str, shape: str = "circle") -> None:
        """Mark a place; shapes "circle", "square" and "triangle" tell series apart without colour."""
        left, top = self.at_x(x), self.at_y(y)
        if shape == "square":
            form = Markup('<rect class="dot {}" x="{}" y="{}" width="7" height="7">').format(
                kind, left - 3.5, top - 3.5
            )
            self._marks.append(form + Markup("<title>{}</title></rect>").format(title))
        elif shape == "triangle":
            corners = f"{left},{top - 5} {left - 4.5},{top + 3.5} {left + 4.5},{top + 3.5}"
            self._add('<polygon class="dot {}" points="{}"><title>{}</title></polygon>', kind, corners, title)
        else:
            self._add('<circle class="dot {}" cx="{}" cy="{}" r="4"><title>{}</title></circle>', kind, left, top, title)

    def bar(self, x: Point, y: Point, kind: str, title: str) -> None:
        """Fill the rectangle from x[0] to x[1] and y[0] to y[1]."""
        left, right = sorted((self.at_x(x[0]), self.at_x(x[1])))
        top, bottom = sorted((self.at_y(y[0]), self.at_y(y[1])))
        self._add(
            '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            kind,
            round(left + 0.5, 1),
            top,
            round(max(right - left - 1, 0.5), 1),
            round(bottom - top, 1),
            title,
        )

    def rule(self, x: Point, y: Point, kind: str) -> None:
        """A straight line from (x[0], y[0]) to (x[1], y[1])."""
        self._add(
            '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>',
            kind,
            self.at_x(x[0]),
            self.at_x(x[1]),
            self.at_y(y[0]),
            self.at_y(y[1]),
        )

    def text(self, x: float, y: float, words: str, kind: str = "note", anchor: str = "start") -> None:
        """Write words at a place, a little above it."""
        self._add(
            '<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>',
            kind,
            self.at_x(x),
            self.at_y(y) - 4,
            anchor,
            words,
        )

    def markup(self) -> Markup:
        """The SVG element."""
        bottom = self.height - _BOTTOM
        head = Markup('<svg role="img" viewBox="0 0 {} {}" width="{}" height="{}" aria-label="{}"><title>{}</title>')
        axis = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        middle = (self.left + self._end) / 2
        labels = Markup(
            '<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>'
            '<text class="label" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format(middle, self.height - 6, self.x_label, (bottom + _TOP) / 2, self.y_label)
        return (
            head.format(self.width, self.height, self.width, self.height, self.title, self.title)
            + Markup("").join(self._marks)
            + axis.format(self.left, self._end, bottom, bottom)
            + labels
            + Markup("</svg>")
        )

    @property
    def _end(self) -> int:
        return self.width - _RIGHT

    def _add(self, form: str, *values: object) -> None:
        self._marks.append(Markup(form).format(*values))  # noqa: S704
