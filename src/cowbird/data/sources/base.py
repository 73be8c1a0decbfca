"""What a dataset source is: a frozen spec whose `load` reads files into a `Dataset`."""

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict

from cowbird.data.types import Dataset


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

    def check(self) -> None:
        """Check that `load` can begin: that the files are there and have the columns that are named.

        The whole data is read, unless a subclass can tell from less.

        Raises:
            UserError: As `load` does.
        """
        self.load()
