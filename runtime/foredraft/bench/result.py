"""What a measurement says, in one form for people and for programs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``bound``: at most (or, with ``at_least``, at least) this; None: reported only.

    ``span``: the least and the greatest of the values of which this is the median.
    """

    name: str
    value: float
    unit: str
    bound: float | None = None
    at_least: bool = False
    span: tuple[float, float] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the bound holds; None without one."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        said = f"{self.name}: {self.value:.4g} {self.unit}".rstrip()
        if self.span is not None:
            said += " [{:.4g} to {:.4g}]".format(*self.span)
        if self.bound is None:
            return said
        relation = "at least" if self.at_least else "at most"
        return f"{said} ({relation} {self.bound:g}: {'holds' if self.holds else 'DOES NOT HOLD'})"


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one measurement, and how they were come by."""

    name: str
    method: str
    figures: tuple[Figure, ...]
