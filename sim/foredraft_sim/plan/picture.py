"""The picture of a plan: what a device costs an hour, against how many a server carries."""

from typing import Any

from foredraft.observe.report import charts
from foredraft.observe.report.style import CHART_STYLE


def picture_of(said: dict[str, Any]) -> str:
    """As SVG: a point for each server and policy; where prices are unknown, utilisation takes their place."""
    priced = all(row["usd_per_device_hour"] is not None for row in said["rows"] if row["devices_per_server"])
    y, label = ("usd_per_device_hour", "USD per device and hour") if priced else ("utilisation", "utilisation")
    rows = [row for row in said["rows"] if row["devices_per_server"] and row[y] is not None]
    points = [
        (
            charts.colour(number),
            charts.letter(number),
            f"{row['server']}, {row['policy']}: {row['devices_per_server']} devices, {row[y]:.3g}",
            float(row["devices_per_server"]),
            float(row[y]),
        )
        for number, row in enumerate(rows)
    ]
    chart = charts.scatter(points, charts.plain, charts.plain, ("devices per server", label))
    notes = [f"{charts.letter(number)}: {row['server']}, {row['policy']}" for number, row in enumerate(rows)]
    wanted = ", ".join(f"{name} at most {most:g}" for name, most in said["objectives"].items())
    return charts.standalone(chart, f"The most devices with {wanted}", notes, CHART_STYLE)
