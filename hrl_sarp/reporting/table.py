"""A table of text cells, for terminals of any width and for Markdown."""

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import rich.box
import rich.table
import rich.text
from rich.console import Console, ConsoleOptions, Group
from rich.markup import escape
from rich.padding import Padding

NONE = "–"  # noqa: RUF001 -- an en dash for what does not exist
CELL_BORDER = 3
"""Characters that a terminal's table adds to each cell."""
HEADING_WIDTH = 10
"""A heading that is wider than this and than its cells continues on the next line."""
LONGEST_WHOLE = 20
"""Characters of the longest name of a row that is never broken, however narrow the terminal."""
SMALLEST_SHOWN = 0.005
"""Smallest size of a number that two decimals tell from 0."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row.

    `Console().print(table)` draws it. On the page it is a block of a section (`reporting.page`).

    Examples:
        >>> table = Table("Policies", ("policy", "return"), [("1/N", percent(0.081))])
        >>> print(table.markdown())
        | policy | return |
        | --- | ---: |
        | 1/N | 8.1 % |
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    """As many cells as the header has."""
    note: str = ""
    """Explanation below the table."""
    emphasised: frozenset[str] = frozenset()
    """Names of rows that are set in bold."""
    telling: tuple[int, ...] = ()
    """Columns in the order in which a terminal shows them while there is room; where there is not,
    intervals in brackets go first. Empty: all are shown, with line breaks in cells."""
    text_columns: frozenset[int] = frozenset({0})
    """Columns that are aligned to the left: words, not numbers."""
    column_notes: Mapping[int, str] = field(default_factory=dict)
    """Explanations of single columns, which follow the note where the column is shown."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Name of a row -> path, from the page, of where a click on it leads."""

    def markdown(self) -> str:
        """Write the table as GitHub's Markdown shows it, without title and note."""
        lines = [self.header, ("---", *("---:" for _ in self.header[1:])), *self.rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )

    def note_of(self, columns: Collection[int]) -> str:
        """Return the note with the explanations of these columns."""
        told = [text for column, text in self.column_notes.items() if column in columns]
        return " ".join(text for text in (self.note, *dict.fromkeys(told)) if text)

    @property
    def whole_note(self) -> str:
        """The note with the explanations of all columns."""
        return self.note_of(range(len(self.header)))

    def within(self, width: int) -> tuple["Table", tuple[int, ...]]:
        """Return the table and the columns that a terminal of `width` characters shows.

        Where not all columns fit, the table is that without intervals.
        """
        columns = self.columns_within(width)
        if not self.telling or len(columns) == len(self.telling):
            return self, columns
        bare = replace(
            self,
            header=tuple(_without_interval(cell) for cell in self.header),
            rows=[tuple(_without_interval(cell) for cell in row) for row in self.rows],
        )
        return bare, bare.columns_within(width)

    def columns_within(self, width: int) -> tuple[int, ...]:
        """Choose the columns that a terminal of `width` characters shows, from left to right."""
        left, kept = width - 1, list[int]()
        for column in self.telling:
            cells = [*self._heading(column).split("\n"), *(row[column] for row in self.rows)]
            left -= CELL_BORDER + max(map(len, cells))
            if left < 0:
                break
            kept.append(column)
        return tuple(sorted(kept)) or tuple(range(len(self.header)))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[rich.table.Table | Padding]:
        """Draw for the terminal; rich calls it."""
        table, columns = self.within(options.max_width)
        n_hidden = len(self.header) - len(columns)
        drawn = rich.table.Table(
            title=escape(self.title),
            title_justify="left",
            title_style="bold",
            box=rich.box.SIMPLE_HEAD,
        )
        for i in columns:
            is_text = i in self.text_columns
            drawn.add_column(
                escape(table._heading(i)),
                justify="left" if is_text else "right",
                no_wrap=bool(self.telling) or not is_text or table._keeps_whole(i),
                overflow="fold",  # a long word continues on the next line, it is never cut
                vertical="top",
            )
        for row in table.rows:
            style = "bold" if row[0] in self.emphasised else None
            drawn.add_row(*(escape(row[i]) for i in columns), style=style)
        yield drawn
        note = self.note_of(columns)
        if n_hidden:
            note += f" Left out here for want of room: {n_hidden} of the columns."
        if note:
            yield Padding(rich.text.Text(note.strip(), style="dim"), (0, 2))

    def _keeps_whole(self, column: int) -> bool:
        """Say whether the names of rows are too short to be broken."""
        return column == 0 and max((len(row[0]) for row in self.rows), default=0) <= LONGEST_WHOLE

    def _heading(self, column: int) -> str:
        longest = max((len(row[column]) for row in self.rows), default=0)
        lines = textwrap.wrap(
            self.header[column],
            max(longest, HEADING_WIDTH),
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(lines)


def _without_interval(cell: str) -> str:
    return cell.split(" [")[0]


def number(value: int | float | None, digits: int = 2) -> str:
    """Write a number with a real minus sign, zero without one, and None as a dash."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """Write a number with its sign and two decimals, or one digit where two show nothing.

    Examples:
        >>> signed(1.5), signed(-0.004), signed(0.0), signed(3e-6)
        ('+1.50', '-0.004', '0.00', '+3e-06')
    """
    if value == 0:
        return "0.00"
    return f"{value:+.2f}" if abs(value) >= SMALLEST_SHOWN else f"{value:+.1g}"


def percent(value: int | float | None, digits: int = 1) -> str:
    """Write a fraction in percent, as 8.1 %, and None as a dash."""
    return NONE if value is None else number(100 * value, digits) + " %"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, which takes an s unless there is one.

    Examples:
        >>> counted(1, "seed"), counted(3, "calendar year"), counted(0, "cell")
        ('1 seed', '3 calendar years', '0 cells')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def paragraphs(sentences: Iterable[str]) -> Group:
    """Return sentences as a terminal shows them: one indented paragraph each, without markup."""
    return Group(*(Padding(rich.text.Text(sentence), (1, 2, 0, 2)) for sentence in sentences))


@dataclass(frozen=True)
class Form:
    """How one kind of number is written.

    Examples:
        >>> Form(1, 100, " %")(0.0812)
        '8.1 %'
    """

    digits: int
    """After the point."""
    scale: int | float = 1
    """By which the number is multiplied."""
    unit: str = ""
    """With the space before it."""

    def __call__(self, value: int | float | None) -> str:
        """Write a number with its unit, and None as a dash."""
        return NONE if value is None else self.bare(value) + self.unit

    def bare(self, value: int | float) -> str:
        """Write a number without its unit."""
        return number(self.scale * value, self.digits)
