"""moto's S3 server on loopback, as a process: `python s3_server.py` prints its port.

It is not in the process of the test: deltalake holds Python's lock while it waits for an answer.
"""

import logging
import re
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Lock

from moto.s3.responses import S3Response
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_RACE = re.compile("/race/.*/_delta_log/0+[1-9]")
_meetings: dict[str, Barrier] = {}
_one_at_a_time = Lock()
_put = S3Response.put_object


def _put_alone(self: S3Response) -> object:
    """A conditional put, atomic as S3 promises it: moto checks and writes in two steps.

    Below a folder `race`, both writers of a log entry must be waiting before either writes.
    """
    if _RACE.search(self.path):
        with suppress(BrokenBarrierError):
            _meetings.setdefault(self.path, Barrier(2)).wait(timeout=25)
    with _one_at_a_time:
        return _put(self)


def main() -> None:
    """Serve until killed."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    S3Response.put_object = _put_alone
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
