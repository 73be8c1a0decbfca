"""Evidence of cells, as tests write and read it."""

from functools import partial

from cowbird.experiments.cell import list_cells
from cowbird.experiments.results_file import load_detections, load_evidence, read_evidence, read_finished
from cowbird.experiments.store import to_tensors
from cowbird.storage import write_tensors


def write_record(path, task, record):
    """Write a record as a cell does."""
    write_tensors(path, to_tensors(task.encode_record(record)))


def read_record(path, task, labels=("s", "a", "d")):
    """Read a record as the results do."""
    return read_evidence(path, partial(task.decode_record, task_labels(labels)))


def task_labels(labels):
    from cowbird.experiments.tasks import EvidenceLabels

    return EvidenceLabels(*labels)


def cell_records(spec, out, number=0):
    """Return the records of a finished cell."""
    cell = list_cells(spec, out)[number]
    return [record for _, record in load_evidence(cell, read_finished(cell).evidence)]


def cell_detections(spec, out, number=0):
    """Return what defenses flagged in a finished cell."""
    cell = list_cells(spec, out)[number]
    return list(load_detections(cell, read_finished(cell).evidence))


def evidence_files(folder):
    """Return the evidence of all cells below a folder, sorted."""
    return sorted(folder.rglob("evidence/*.safetensors"))
