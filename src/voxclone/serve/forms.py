"""Multipart forms: the fields and files that a route knows, each once."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request, UploadFile

from voxclone.serve.errors import ApiError, invalid_value
from voxclone.serve.middleware import FORM_BYTES


@dataclass(frozen=True)
class Form:
    """Text fields, and the one file if there is one: its field, its name and its bytes."""

    fields: dict[str, str]
    field: str | None = None
    name: str = ""
    content: bytes = b""

    def get(self, name: str) -> str:
        """A text field without white space around it; empty if it is not there."""
        return self.fields.get(name, "").strip()


@asynccontextmanager
async def _parsed(request: Request) -> AsyncIterator[list[tuple[str, Any]]]:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(415, "Send a form: multipart/form-data.", code="unsupported_media_type")
    async with request.form(max_files=2, max_fields=16, max_part_size=FORM_BYTES) as form:
        yield form.multi_items()


async def read_form(request: Request, files: Collection[str], fields: Collection[str] = ()) -> Form:
    """The form of a request. Raises ApiError for anything but `fields` with text and one of `files`
    with a file; nothing that is named in a form is ever fetched or opened."""
    found: dict[str, str] = {}
    sent: tuple[str, str, bytes] | None = None
    async with _parsed(request) as items:
        for name, value in items:
            known = name in files or name in fields
            if not known or name in found or (sent is not None and name in files):
                reason = "is there twice, or beside another file" if known else "is not known here"
                raise invalid_value(name[:80], f"{name[:80]!r} {reason}.")
            if isinstance(value, str) and name in fields:
                found[name] = value
            elif not isinstance(value, str) and name in files:
                sent = name, _name(value), await value.read()
            else:
                kind = "a file: no address or path is looked up" if name in files else "a text"
                raise invalid_value(name, f"{name!r} must be {kind}.")
    if sent is None:
        raise invalid_value(next(iter(files)), f"{' or '.join(files)} is missing.")
    return Form(found, *sent)


def _name(file: UploadFile) -> str:
    """What a file is called in messages: no folders, nothing unprintable."""
    last = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(letter if letter.isprintable() else "?" for letter in last)
    return plain[-80:] or "The recording"
