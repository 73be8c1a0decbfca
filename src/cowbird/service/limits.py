"""What a service takes on at most: sizes, rates, times and memory. Beyond a limit a request is refused, never cut."""

from pydantic import BaseModel, ConfigDict, Field


class ServiceLimits(BaseModel):
    """The limits of a service."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    max_title: int = Field(default=2000, ge=1)
    """Characters of a title."""
    max_titles: int = Field(default=1000, ge=1)
    """Titles of a request."""
    max_body: int = Field(default=1 << 20, ge=64)
    """Bytes of a request's body."""
    queue: int = Field(default=2000, ge=1)
    """Titles that wait to be judged. Requests beyond that are answered with 503."""
    batch: int = Field(default=16, ge=1)
    """Titles judged at once by a process, of one request or several."""
    workers: int = Field(default=1, ge=1)
    """Processes that judge."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds that a request waits for its verdicts."""
    read_timeout: float = Field(default=10.0, gt=0)
    """Seconds in which a client sends the head of a request, and again its body."""
    rate: float | None = Field(default=None, gt=0)
    """Titles a second of one client, on average; `None` for no limit."""
    burst: int = Field(default=2000, ge=1)
    """Titles that a client may send at once before its rate counts."""
    connections: int = Field(default=512, ge=1)
    """Open connections; more are answered with 503."""
    cache: int = Field(default=50_000, ge=0)
    """Titles whose verdicts are kept in memory for when they come again."""
    log_bytes: int = Field(default=1 << 28, ge=1024)
    """Size at which a file of the audit log is closed and the next one begun."""
