"""A page from its template: what heedful's pages share, the settings of jinja2 and, in `style.css.j2`, their look."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(name: str, values: dict[str, Any]) -> str:
    """Return the template of that name, with its folder under heedful's own, filled with values."""
    environment = Environment(
        loader=PackageLoader("heedful", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)
