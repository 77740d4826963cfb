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
ENVIRONMENT.filters["figure3"] = lambda value: "–" if value is None else f"{value:.3f}"


def render(template: str, **values: Any) -> str:
    """A template of `reports/templates`, filled; texts are escaped, pictures come in as `Markup`."""
    return ENVIRONMENT.get_template(template).render(**values)
