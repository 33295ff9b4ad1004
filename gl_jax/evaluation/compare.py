"""Compares methods on the same photographs with the same holes: `gl-jax compare`.

A method is a function from (image, mask) to an image: ours, named `gl` (the network's
output without post-processing, at the photograph's size), and the baselines. All are
measured on the 8-bit picture with the known pixels put back, as a user gets it. Every
score is kept in a journal: the call, repeated, continues after an interruption, and with
more methods runs only the new ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gl_jax.config import UsageError
from gl_jax.data.records import Source
from gl_jax.evaluation import mask_list, results
from gl_jax.evaluation.baselines import Hole, Image, fair
from gl_jax.evaluation.measures import catalogue
from gl_jax.evaluation.measures.scorer import fingerprint
from gl_jax.evaluation.methods import (
    OURS,
    Method,
    is_named,
    known,
    load,
    of_model,
    parse,
)
from gl_jax.evaluation.methods import notes as notes_on
from gl_jax.evaluation.outcomes import Outcomes
from gl_jax.evaluation.photographs import (
    READERS,
    Photograph,
    Reader,
    Selection,
    hole_notes,
    unreadable_notes,
)
from gl_jax.evaluation.protocol import IMAGE_SIZE
from gl_jax.evaluation.results import Comparison
from gl_jax.evaluation.resume import Journal
from gl_jax.files import writing
from gl_jax.inpainting.completer import Completer
from gl_jax.inpainting.loading import load_model, trained_sizes
from gl_jax.weights import native
from gl_jax.weights.native import Model


def run(
    model: str | Path | None,
    selection: Selection,
    methods: tuple[str, ...],
    output: Path,
    *,
    experiment: Path | None = None,
    metrics: Sequence[str] | None = None,
    sheet_rows: int = 8,
    log: Callable[[str], None] = print,
) -> Comparison:
    """Compares `methods` and writes comparison.md, .csv, .json and .png into `output`.

    `model` and `experiment` are as in `gl_jax.load` and belong to the method `gl`. A path
    is a method, too: a further model, named by the path's stem. `metrics` are names of
    `catalogue.METRICS` that need no weights, by default all of them.
    `selection` has one seed, and no mask list. The sheet shows the first `sheet_rows`
    photographs; their pictures are kept in `pictures/METHOD/`, and the photographs under
    the same names in `truth/`, as input of `gl-jax study`.

    If a method fails on a photograph, the failure is named below the table and the rest
    goes on. A method whose library is missing and a photograph that cannot be read are
    left out and named. Each method completes a photograph once before the clock starts,
    so no time includes a compilation or an import.

    Raises UsageError for mistakes of the caller, an unknown name with the nearest one,
    and if `output` holds a comparison of other photographs or holes.
    """
    methods = tuple(dict.fromkeys(methods))
    (seed,) = selection.seeds or (0,)
    _check_methods(methods)
    selection.check()
    chosen = _chosen(metrics)
    made: dict[str, Method] = {}
    step, side = None, selection.side(0)
    for name in methods:
        if is_named(name):
            made[_title(name)] = load(name)
            continue
        loaded = load_model(model if name == OURS else name, experiment)
        made[_title(name)] = method = of_model(loaded) or _ours(loaded)
        side = side or method.side or trained_sizes(loaded).image
        step = loaded.training.get("steps") if name == OURS else step
    functions = {title: method.fill for title, method in made.items()}
    fingerprints = {
        title: fingerprint(method.model)
        for title, method in made.items()
        if method.model is not None
    }
    source = selection.open()
    side, notes = side or IMAGE_SIZE, selection.left_out(source)
    notes += [note for m in made.values() for note in notes_on(m, side)]
    photographs, facts = _photographs(selection, source, side, notes)
    facts |= {"seed": seed, "metrics": list(chosen)}
    with writing(f"output {output}"):
        output.mkdir(parents=True, exist_ok=True)
    with Journal(output / "journal.jsonl", facts) as journal:
        outcomes = Outcomes(
            journal, photographs, output, fingerprints, chosen, sheet_rows
        )
        names, scores, failures = outcomes.complete(functions, notes, log)
    sets = outcomes.of_sets(names, notes)
    notes = [*selection.rules.notes, *notes]
    settings = {
        "data": selection.data, "split": selection.split, "masks": selection.masks,
        "seed": seed, "metrics": list(chosen),
        "photographs": [entry.photograph for entry, _ in photographs],
        "image_size": side, "model": _label(model, methods), "step": step,
    }  # fmt: skip
    result = Comparison(settings, names, scores, failures, sets, tuple(notes))
    titles = ["input", *names, "truth"]
    results.write(result, output, "comparison.png", titles, outcomes.tiles(names))
    log(result.table().to_markdown())
    log(f"Written to {output}: comparison.md, .csv, .json and .png.")
    return result


def _chosen(metrics: Sequence[str] | None) -> tuple[str, ...]:
    for name in metrics or ():
        if name in catalogue.METRICS and name not in catalogue.WITHOUT_WEIGHTS:
            raise UsageError(
                f"metric {name} needs weights, with which only `gl-jax evaluate` measures; "
                f"a comparison knows {', '.join(catalogue.WITHOUT_WEIGHTS)}."
            )
    return catalogue.choose(
        catalogue.WITHOUT_WEIGHTS if metrics is None else metrics, ()
    )


def _label(model: str | Path | None, methods: Sequence[str]) -> str | None:
    if OURS not in methods:
        return None
    return "shipped" if model is None else str(model)


def _check_methods(methods: Sequence[str]) -> None:
    shipped = native.shipped()
    for name in methods:
        is_model = name == OURS or Path(name).exists() or name in shipped
        if is_named(name) or not is_model:
            parse(name)
    titles = [_title(name) for name in methods]
    twice = {title for title in titles if titles.count(title) > 1}
    if twice:
        raise UsageError(
            f"methods: more than one would stand under {', '.join(sorted(twice))} in the "
            "table; give the file of one another name."
        )
    if not methods:
        raise UsageError(f"methods must name at least one of {', '.join(known())}.")


def _title(word: str) -> str:
    """Returns the name that a method has in the table."""
    name = word.partition("=")[0]
    return name if name in known() else Path(word).stem


def _ours(model: Model) -> Method:
    """Returns the network's own output in 8 bits, at the photograph's size."""
    completer = Completer(model)

    def complete(image: Image, mask: Hole) -> Image:
        return np.rint(completer.raw(image, mask) * 255).astype(np.uint8)

    return Method(OURS, fair(complete), model=model)


def _photographs(
    selection: Selection, source: Source, side: int, notes: list[str]
) -> tuple[list[Photograph], dict[str, Any]]:
    """Returns the readable photographs, at least one, and the settings they follow from.

    `notes` names the others.
    """
    count = min(selection.count or len(source), len(source))
    if (selection.count or 0) > count:
        notes.append(
            f"{selection.count} photographs were asked for, there are {count}."
        )
    entries = replace(selection, count=count).drawn(source, side)
    notes += hole_notes(selection, entries)
    reader = Reader(source, side)
    batches = reader.batches(entries, READERS)
    photographs = [photograph for _, batch in batches for photograph in batch]
    notes += unreadable_notes(reader.unreadable)
    if not photographs:
        raise UsageError(f"no photograph can be read; {notes[-1]}")
    facts = {
        "photographs": source.fingerprint(), "count": len(photographs),
        "masks": mask_list.digest(entries), "image_size": side,
    }  # fmt: skip
    return photographs, facts
