"""The library of language models, imported where it is first used: that takes seconds."""

import importlib
import os
from typing import Any

from cowbird.errors import OutageError


def import_transformers() -> Any:
    """Return the transformers library.

    Raises:
        UserError: If the extra `llm` is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise OutageError(f"Language models need {error.name}.", "Install them: pip install 'cowbird[llm]'.") from None
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    return library
