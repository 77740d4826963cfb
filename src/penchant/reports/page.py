"""The frame of our HTML pages: one file, no request to anywhere."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

ENVIRONMENT = Environment(
    loader=PackageLoader("penchant.reports"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def figure3(value: float | None) -> str:
    """A figure with three digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


ENVIRONMENT.filters["figure3"] = figure3


def render(template: str, **values: Any) -> str:
    """A template of `reports/templates`, filled; texts are escaped, pictures come in as `Markup`."""
    return ENVIRONMENT.get_template(template).render(**values)
