"""The templates of the package's pages, each of which is one self-contained HTML file."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape


def template(name: str) -> Template:
    """A template of `templates/`: text is escaped in it, and a name that it is not given is an error."""
    environment = Environment(
        loader=PackageLoader("delrec_jax.analysis"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
