"""Wire model of whom to write to."""

from typing import Annotated

from pydantic import BaseModel, Field


class Contact(BaseModel):
    """Whom to write to about this server; null where nobody is named."""

    name: str
    email: str | None
    url: str | None
    purposes: list[str]
    docs: Annotated[str, Field(description="Where everything else is.")]
