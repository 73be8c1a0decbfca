"""Opens a model, whatever it is: a file of a known format, a Python function, or a process that serves it."""

from pathlib import Path

import torch

from cowbird.errors import UserError
from cowbird.inspection.foreign import open_foreign_model
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.own_model import is_own_model, open_own_model
from cowbird.inspection.served import open_function, open_process
from cowbird.victims.loaders.opening import READABLE_MODELS, CheckpointOptions

FUNCTION_PREFIX, PROCESS_PREFIX = "function:", "process:"
"""How the names of models begin that are no files."""


def open_model(
    path: Path | str, device: torch.device, options: CheckpointOptions | None = None, allow_plugins: bool = False
) -> OpenedModel:
    """Open a model that somebody handed over.

    Args:
        path: Its file; or `function:module:name` or `process:COMMAND`, which answer from outside.
        device: Where scores are made.
        options: What a file of another library does not tell.
        allow_plugins: Whether a function may be imported and a process started.

    Raises:
        UserError: If the file is missing, of no known format, or damaged; or what answers can't be reached.
    """
    name = str(path)
    if name.startswith((FUNCTION_PREFIX, PROCESS_PREFIX)):
        _refuse_options(name, options, "answers from outside")
    if name.startswith(FUNCTION_PREFIX):
        asked = open_function(name.removeprefix(FUNCTION_PREFIX), allow_plugins)
        return OpenedModel(asked, asked.title, "")
    if name.startswith(PROCESS_PREFIX):
        served = open_process(name.removeprefix(PROCESS_PREFIX), allow_plugins)
        return OpenedModel(served, served.title, "")
    path = Path(path)
    if not path.is_file():
        found = "it is a folder, a pipe or a device" if path.exists() else "there is none"
        raise UserError(f"'{path}' should be a model's file, and {found}.", READABLE_MODELS)
    if is_own_model(path) and (options is None or not options.format):
        _refuse_options(name, options, "was saved by Cowbird, and its header tells all that is needed")
        return open_own_model(path, device)
    return open_foreign_model(path, device, options)


def _refuse_options(name: str, options: CheckpointOptions | None, found: str) -> None:
    """Refuse what is said of a file of another library where a model is none."""
    if options is not None and (options.format or options.settings):
        raise UserError(
            f"--format and --set are for files of other libraries, and '{name}' {found}.", "Leave them out."
        )
