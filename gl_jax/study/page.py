"""The page of a study: one file with its style, script and words, and no library."""

import html
import json
from importlib.resources import files

from gl_jax.study.key import Key


def page(key: Key) -> str:
    """Returns index.html, which shows the pictures in `pictures/` beside it.

    It works offline. It has the orders, but not the identities of the pictures.
    """
    static = files("gl_jax.study") / "static"

    def text(name: str) -> str:
        return (static / name).read_text(encoding="utf-8")

    strings = json.loads(text("strings.json"))
    study = {
        "study": key.study, "kind": key.kind, "seconds": key.seconds,
        "orders": key.orders,
    }  # fmt: skip
    parts = {
        "@language@": html.escape(strings["language"]),
        "@title@": html.escape(strings["title"]),
        "@noscript@": html.escape(strings["noscript"]),
        "@style@": text("page.css"),
        "@study@": _in_script(study),
        "@strings@": _in_script(strings),
        "@script@": text("page.js"),
    }
    result = text("page.html")
    for mark, part in parts.items():
        result = result.replace(mark, part)
    return result


def _in_script(value: object) -> str:
    """Returns JSON that cannot end the script element around it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
