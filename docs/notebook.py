"""Makes docs/functional.ipynb of docs/functional.md: its code, run, with pictures.

pip install nbclient ipykernel && python docs/notebook.py
"""

import re
from pathlib import Path

import nbclient
import nbformat
from nbformat import v4

PAGE = Path(__file__).parent / "functional.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")

SHOW = '''\
import matplotlib.pyplot as plt
import jax.numpy as jnp

from gl_jax.holes import HOLES, composite, example_keys
from gl_jax.weights.convention import Convention

shown = photographs[:10].astype("float32") / 255
keys = example_keys(jax.random.key(1), HOLES, 0, len(shown))
mask = paper.sample_holes(keys, (32, 32), keys[0]).mask


def completed(state, network=paper.completion):
    """The photographs with their holes completed by the network in training."""
    inputs = Convention.gl_jax(mean_color).encode(jnp.asarray(shown), mask)
    net = state.completion
    variables = {"params": net.params, "batch_stats": net.batch_stats}
    outputs, _ = network.apply(variables, inputs, train=True, mutable=["batch_stats"])
    return composite(outputs, shown, mask)


def show(**rows):
    """Rows of pictures under their names."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 1.05 * len(rows)))
    for axis, (name, images) in zip(np.atleast_1d(axes), rows.items()):
        axis.imshow(np.clip(np.concatenate(list(np.asarray(images)), axis=1), 0, 1))
        axis.set_ylabel(name.replace("_", "\\n"), rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.3)
    plt.show()


show(
    photographs=shown,
    holes=shown * (1 - mask) + 0.5 * mask,
    completion_phase=completed(completing),
    joint_phase=completed(trained),
)'''
SEEN = """\
views = {name: view(jnp.asarray(shown), paper.sample_holes(keys, (32, 32), keys[0]))
         for name, view in paper.views.items()}
diff = augment.chain(augment.color, augment.translation(0.125), augment.cutout(0.5))
changed = diff(keys, views, jnp.zeros((), int), jnp.ones(()))
show(whole_image=views["global"], DiffAugment=changed["global"])
show(window=views["local"], DiffAugment=changed["local"])"""
PICTURES = {"print(metrics)": SHOW, "augment.translation(0.125)": SEEN}
"""Code after which a cell with pictures follows, and that cell."""


def cells() -> list[nbformat.NotebookNode]:
    """The cells of the notebook, not yet run."""
    made = []
    for text, code in re.findall(
        r"(.*?)(?:^```python\n(.*?)^```$|\Z)", PAGE.read_text(), re.M | re.S
    ):
        # Links on the page are to files beside it, as the notebook is.
        if text.strip():
            made.append(v4.new_markdown_cell(text.strip()))
        if code:
            made.append(v4.new_code_cell(code.strip()))
            made += [
                v4.new_code_cell(picture)
                for sign, picture in PICTURES.items()
                if sign in code
            ]
    for number, cell in enumerate(made):
        cell["id"] = f"cell{number}"
    return made


if __name__ == "__main__":
    notebook = v4.new_notebook(cells=cells())
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, NOTEBOOK)
