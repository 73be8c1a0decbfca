"""What victims are asked to do: a room for each task, with everything about it.

A victim's class names its task (`Victim.task`): the module here, or the dotted path of somebody else's. Nothing outside
this package asks what kind of victim it is.
"""

from cowbird import plugins
from cowbird.experiments.measures import MEASURES, Measure
from cowbird.experiments.tasks.base import AnyTask, EvidenceLabels, PlantedAttack, Task, TaskContext, TaskSummary
from cowbird.victims.base import Victim

__all__ = [
    "AnyTask",
    "EvidenceLabels",
    "PlantedAttack",
    "Task",
    "TaskContext",
    "TaskSummary",
    "find_task",
    "list_measures",
    "list_tasks",
]

_found: dict[str, AnyTask] = {}


def find_task(victim: Victim) -> AnyTask:
    """Return the task of a victim.

    Raises:
        UserError: If the module that its class names holds no task.
    """
    return _find_by_name(victim.task)


def _find_by_name(name: str) -> AnyTask:
    if name not in _found:
        # The victim's class names the module, and that class was imported with the permission that it needed.
        _found[name] = plugins.find_plugin("task", name, allow_paths=True)
    return _found[name]


def list_tasks() -> list[AnyTask]:
    """List the tasks that ship or are installed, and those that victims brought along in this process."""
    for name in plugins.list_plugins("task"):
        _find_by_name(name)
    return list(dict.fromkeys(_found.values()))


def list_measures() -> list[Measure]:
    """List all measures that result rows can have, each once; every one can stand for its mean over seeds as well."""
    list_tasks()
    return [measure for measure in MEASURES.values() if not measure.over_seeds]
