"""The notebooks of the documentation run from the top to the end, in a kernel of their own, as they stand."""

import shutil
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def read(path):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(path, as_version=4)


def test_each_person_has_one():
    pages = {path.stem for path in (Path(__file__).parents[2] / "docs" / "for").glob("*.md")}
    assert {path.stem for path in NOTEBOOKS} == pages


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_name_no_place_of_a_machine(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = path.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert "/tmp/" not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(monkeypatch, path, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests, threads that wait for each other cost a multiple
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("peft")
    notebook = read(shutil.copy(path, tmp_path))
    place = {"metadata": {"path": str(tmp_path)}}
    made = nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=place).execute()
    assert all(cell.execution_count for cell in made.cells if cell.cell_type == "code")
