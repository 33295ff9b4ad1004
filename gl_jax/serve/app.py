"""The server's endpoints; docs/serve.md describes each.

A body is read in pieces, and refused as soon as it is known to be too long. Errors are
answered with one line of JSON, {"error": ...}.
"""

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gl_jax import images
from gl_jax.config import UsageError
from gl_jax.inpainting import masks
from gl_jax.inpainting.batch import Look
from gl_jax.serve import saving
from gl_jax.serve.jobs import DrawnMask, FullError, Jobs
from gl_jax.serve.methods import Methods
from gl_jax.serve.saving import Folder
from gl_jax.serve.store import Picture, Store, UnknownError
from gl_jax.version import __version__

LARGEST_UPLOAD = 256 << 20
"""Largest body of a request, in bytes."""
UPLOADS = 2
"""Number of bodies that are read at a time; the others wait unread."""
PIECE_TIMEOUT = 20.0
"""Seconds without a new piece of a body after which its upload is ended."""
THUMBNAIL = 192
"""Longer side of a thumbnail, in pixels."""

Endpoint = Callable[[Request], Awaitable[Response]]
Number = TypeVar("Number", int, float)


class Server:
    """The endpoints and their shared state."""

    def __init__(
        self,
        methods: Methods,
        *,
        store: Store | None = None,
        photos: tuple[Path, ...] = (),
        folder: Folder | None = None,
    ) -> None:
        """Offers `methods`, the first of them by default, and the photos at `photos`.

        Results can be saved into `folder`, if there is one. `store` holds photos and
        results; by default a new one of 2 GiB.
        """
        self.store = Store() if store is None else store
        self.jobs = Jobs(self.store, methods)
        self._methods = methods
        self._photos = [self.store.add_path(photo) for photo in photos]
        self._folder = folder
        self._uploads = asyncio.Semaphore(UPLOADS)

    def app(self) -> Starlette:
        """Returns the ASGI application, without the checks of `security.Guard`."""
        routes = [
            Route("/api/about", self.about),
            Route("/api/photos", self.upload, methods=["POST"]),
            Route("/api/photos/{id}", self.photo),
            Route("/api/photos/{id}/picture", self.picture),
            Route("/api/photos/{id}/thumbnail", self.thumbnail),
            Route("/api/photos/{id}/patch", self.patch),
            Route("/api/photos/{id}/file", self.file),
            Route("/api/photos/{id}/save", self.save, methods=["POST"]),
            Route("/api/masks", self.mask, methods=["POST"]),
            Route("/api/zip", self.zip),
            Route("/api/jobs", self.start, methods=["POST"]),
            Route("/api/jobs/{id}", self.job),
            Route("/api/jobs/{id}", self.cancel, methods=["DELETE"]),
            *(Route(path, _static(*file)) for path, file in static_files().items()),
        ]
        handlers: Mapping[Any, Any] = {
            UsageError: _answer(422),
            UnknownError: _answer(404),
            FullError: _answer(503),
            HTTPException: _http_error,
            ClientDisconnect: _answer(400),
            MemoryError: _answer(507),
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    async def about(self, request: Request) -> Response:
        """Returns the version, methods, limits and the photos of the command line."""
        return JSONResponse({
            "version": __version__,
            "methods": [
                {"name": name, **method.about()}
                for name, method in self._methods.items()
            ],
            "photos": [{"id": p.id, "name": p.name} for p in self._photos],
            "folder": None if self._folder is None else str(self._folder.path),
            "largest_upload": LARGEST_UPLOAD,
            "suffixes": sorted(images.readable_suffixes()),
        })  # fmt: skip

    async def upload(self, request: Request) -> Response:
        """Stores the photo file in the body; returns its facts."""
        name = request.query_params.get("name", "photo")
        async with self._uploads:
            data = await _body(request, LARGEST_UPLOAD)
            picture = await run_in_threadpool(self.store.add_upload, name, data)
        return JSONResponse(_facts(picture), 201)

    async def photo(self, request: Request) -> Response:
        """Returns the facts of a photo or result."""
        return JSONResponse(_facts(await self._picture(request)))

    async def picture(self, request: Request) -> Response:
        """Returns the photo's own file if browsers can show it, else a PNG."""
        picture = await self._picture(request)
        return await run_in_threadpool(_shown, picture)

    async def thumbnail(self, request: Request) -> Response:
        """Returns a small PNG of the photo."""
        picture = await self._picture(request)
        assert picture.photo is not None  # the store decodes
        png = await run_in_threadpool(images.to_png, picture.photo, longest=THUMBNAIL)
        return Response(png, media_type="image/png")

    async def patch(self, request: Request) -> Response:
        """Returns the part of the photo inside `box` (x,y,width,height) as a PNG."""
        picture = await self._picture(request)
        assert picture.photo is not None  # the store decodes
        x, y, width, height = _numbers(request, "box", 4)
        tall, wide = picture.photo.size
        if x + width > wide or y + height > tall or not width * height:
            raise HTTPException(422, f"box must lie inside the {wide}x{tall} pixels.")
        box = (slice(y, y + height), slice(x, x + width))
        png = await run_in_threadpool(images.to_png, picture.photo, box)
        return Response(png, media_type="image/png")

    async def file(self, request: Request) -> Response:
        """Returns the file that `gl-jax complete` would write for a photo or result."""
        picture = await self._picture(request)
        data, name, notices = await run_in_threadpool(
            saving.encoded, picture, _look(request)
        )
        kind = images.format_of(Path(name).suffix).lower()
        return Response(
            data,
            media_type=f"image/{kind}",
            headers={
                "Content-Disposition": saving.disposition(name),
                "X-Notices": saving.as_header(notices),
            },
        )

    async def save(self, request: Request) -> Response:
        """Writes the same file into the folder for results."""
        if self._folder is None:
            raise HTTPException(
                409,
                "the server has no folder for results; start it with --output FOLDER.",
            )
        picture = await self._picture(request)
        origin = request.query_params.get("origin", picture.id)
        name, notices = await run_in_threadpool(
            self._folder.save, picture, _look(request), origin
        )
        return JSONResponse({"name": name, "notices": notices}, 201)

    async def zip(self, request: Request) -> Response:
        """Returns a ZIP of the files of `ids`, which commas separate."""
        ids = [i for i in request.query_params.get("ids", "").split(",") if i]
        if not ids:
            raise HTTPException(422, "ids must be identifiers of photos or results.")
        return await run_in_threadpool(
            saving.archive, self.store, ids[:1000], _look(request)
        )

    async def mask(self, request: Request) -> Response:
        """Returns the mask file in the body as bits, at its own size."""
        async with self._uploads:
            data = await _body(request, LARGEST_UPLOAD)
            return await run_in_threadpool(_mask_of, data)

    async def start(self, request: Request) -> Response:
        """Starts a job; the body is the mask's bits inside `box`, row by row."""
        query = request.query_params
        method = query.get("method", next(iter(self._methods)))
        if method not in self._methods:
            raise HTTPException(
                422, f"method must be one of {', '.join(self._methods)}."
            )
        identifier = query.get("photo", "")
        picture = await run_in_threadpool(self.store.get, identifier)
        assert picture.photo is not None  # the store decodes
        width, height = _numbers(request, "size", 2)
        tall, wide = picture.photo.size
        limit = 4 * max(tall * wide, 1 << 20)
        if not 0 < width * height <= limit:
            raise HTTPException(422, f"size must have 1 to {limit:,} pixels.")
        x, y, across, down = _numbers(request, "box", 4)
        if x + across > width or y + down > height:
            raise HTTPException(
                422, f"box must lie inside the {width}x{height} pixels."
            )
        look = _look(request)
        expected = (across * down + 7) // 8
        async with self._uploads:
            bits = await _body(request, expected)
        if len(bits) != expected:
            raise HTTPException(422, f"the mask must have {expected:,} bytes.")
        mask = DrawnMask(width, height, (x, y, across, down), bits)
        job = self.jobs.add(identifier, method, mask, look)
        return JSONResponse(self.jobs.describe(job), 201)

    async def job(self, request: Request) -> Response:
        """Returns the state and progress of a job."""
        job = self.jobs.get(request.path_params["id"])
        return JSONResponse(self.jobs.describe(job))

    async def cancel(self, request: Request) -> Response:
        """Cancels a job."""
        job = self.jobs.cancel(request.path_params["id"])
        return JSONResponse(self.jobs.describe(job))

    async def _picture(self, request: Request) -> Picture:
        return await run_in_threadpool(self.store.get, request.path_params["id"])


def static_files() -> dict[str, tuple[bytes, str]]:
    """Returns the content and media type of the page's files, by URL path."""
    folder = resources.files("gl_jax.serve") / "static"
    files = {}
    for file in folder.iterdir():
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or file.name.endswith(".svg"):
            kind += "; charset=utf-8"
        files[f"/{file.name}"] = (file.read_bytes(), kind)
    files["/"] = files.pop("/index.html")
    return files


def _static(content: bytes, kind: str) -> Endpoint:
    async def answer(request: Request) -> Response:
        return Response(content, headers={"Content-Type": kind})

    return answer


def _answer(status: int) -> Callable[[Request, Exception], Response]:
    return lambda request, error: JSONResponse(
        {"error": str(error) or type(error).__name__}, status
    )


def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _body(request: Request, limit: int) -> bytes:
    """Returns the body; HTTPException once it is too slow or longer than `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise HTTPException(
            413, f"the body has more than {limit:,} bytes.", {"Connection": "close"}
        )
    data = bytearray()
    pieces = request.stream()
    try:
        while True:
            async with asyncio.timeout(PIECE_TIMEOUT):
                piece = await anext(pieces, None)
            if piece is None:
                return bytes(data)
            data += piece
            if len(data) > limit:
                raise HTTPException(
                    413,
                    f"the body has more than {limit:,} bytes.",
                    {"Connection": "close"},
                )
    except TimeoutError:
        raise HTTPException(
            408, "the upload has stopped.", {"Connection": "close"}
        ) from None


def _numbers(request: Request, name: str, count: int) -> list[int]:
    words = request.query_params.get(name, "").split(",")
    if len(words) != count or not all(w.isascii() and w.isdigit() for w in words):
        numbers = f"{count} whole numbers, separated by commas"
        expected = "a whole number" if count == 1 else numbers
        raise HTTPException(422, f"{name} must be {expected}.")
    if any(len(word) > 6 for word in words):
        raise HTTPException(422, f"{name} must be below 1,000,000.")
    return [int(word) for word in words]


def _look(request: Request) -> Look:
    """Reads the options of a completion and its file; UsageError for a wrong one."""
    query = request.query_params
    blend = query.get("blend", "poisson")
    if blend not in ("poisson", "none"):
        raise UsageError(f"blend (={blend!r}) must be 'poisson' or 'none'.")
    numbers = {
        name: _numbers(request, name, 1)[0] if query.get(name) else None
        for name in ("feather", "resize_to", "quality")
    }
    return Look(
        blend="none" if blend == "none" else "poisson",
        feather=numbers["feather"] or 0,
        resize_to=numbers["resize_to"],
        quality=numbers["quality"],
        format=query.get("format") or None,
    )


def _facts(picture: Picture) -> dict[str, Any]:
    photo = picture.photo
    assert photo is not None  # the store decodes
    height, width = photo.size
    kind = "float" if photo.pixels.dtype.kind == "f" else "whole"
    return {
        "id": picture.id, "name": picture.name, "width": width, "height": height,
        "format": photo.format, "bits": 8 * photo.pixels.dtype.itemsize, "kind": kind,
        "alpha": photo.alpha is not None, "notices": photo.notices,
    }  # fmt: skip


def _shown(picture: Picture) -> Response:
    kind = None if picture.data is None else images.browser_type(picture.data)
    if picture.data is not None and kind is not None:
        return Response(picture.data, media_type=kind)
    assert picture.photo is not None  # the store decodes
    return Response(images.to_png(picture.photo), media_type="image/png")


def _mask_of(data: bytes) -> Response:
    picture = images.decode(data, "the mask")
    mask, notices = masks.from_picture(picture, "the mask")
    height, width = mask.shape
    return Response(
        np.packbits(mask).tobytes(),
        media_type="application/octet-stream",
        headers={
            "X-Size": f"{width},{height}",
            "X-Notices": saving.as_header(tuple(notices)),
        },
    )
