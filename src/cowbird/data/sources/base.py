"""What a dataset source is: a frozen spec whose `load` reads files into a `Dataset`."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from cowbird.data.types import Dataset
from cowbird.errors import UserError


class Source(BaseModel, ABC):
    """Reads one dataset or file format.

    A subclass declares its parameters (paths, column names) as typed fields and writes `load`. Rows that can't be used
    become counted skips; a file that can't be the format at all is a `UserError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @abstractmethod
    def load(self) -> Dataset:
        """Read the data.

        Raises:
            UserError: If the files are missing or can't be this format.
        """

    def find_problems(self) -> list[UserError]:
        """Return what would keep `load` from reading the data, as far as a subclass can tell before that.

        `load` raises its first problem alone. A subclass that reads several files looks at each of them here.
        """
        return []


def catch_problem(work: Callable[[], object]) -> list[UserError]:
    """Return what work raises as a `UserError`, in a list; an empty one if it raises none."""
    try:
        work()
    except UserError as error:
        return [error]
    return []
