"""An emulated Google Cloud Storage with one bucket: `python gcs.py PORT`.

gcp-storage-emulator with what tensorstore and gcsfs need besides: the generation of an
object that is read, conditions on it, moving an object, and answers to several requests
at once.
"""

import logging
import sys
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"
MISSING = "0"
"""The generation of an object that does not exist, in a condition."""


class Handler(RequestHandler):  # type: ignore[misc]
    # An answer in two packets would else wait for the first to be acknowledged.
    disable_nagle_algorithm = True
    storing = threading.Lock()
    generation = MISSING

    def handle_one(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path, move, goal = url.path.partition("/moveTo/o/")
        name = query.get("name", path.partition("/o/")[2])
        if move:  # gcsfs tries for half a minute before it copies and deletes instead
            self.path = f"{path}/copyTo/b/{BUCKET}/o/{goal}"
        with self.storing:
            try:
                stored = self.storage.get_file_obj(BUCKET, unquote(name))
                self.generation = stored["generation"]
            except NotFound:
                self.generation = MISSING
            if query.get("ifGenerationMatch", self.generation) != self.generation:
                self.send_error(412)
            elif query.get("ifGenerationNotMatch") == self.generation:
                self.send_error(304 if method == "GET" else 412)
            else:
                Router(self).handle(method)
                if move and self.generation != MISSING:
                    self.storage.delete_file(BUCKET, unquote(name))

    def end_headers(self) -> None:
        if self.command == "GET" and self.generation != MISSING:
            self.send_header("x-goog-generation", self.generation)
        super().end_headers()

    def do_GET(self) -> None:
        self.handle_one("GET")

    def do_POST(self) -> None:
        self.handle_one("POST")

    def do_PUT(self) -> None:
        self.handle_one("PUT")

    def do_DELETE(self) -> None:
        self.handle_one("DELETE")


def serve(port: int) -> None:
    logging.disable()
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    ThreadingHTTPServer(("localhost", port), partial(Handler, storage)).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
