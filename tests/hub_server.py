"""A stand-in for the Hub's downloads: what `hf_hub_download` asks for, on 127.0.0.1."""

import contextlib
import hashlib
import http.server
import threading
import urllib.parse


@contextlib.contextmanager
def hub_server(files, commit):
    """Serves files as the Hub does.

    Args:
        files: `{path: content}`, a path being that of the URL, such as
            `datasets/owner/name/resolve/REVISION/file`. A content is bytes, or
            a pair of bytes: those served and those that the ETag speaks of.
            The dictionary may change while the server runs.
        commit: The commit that the server names, 40 hexadecimal digits.

    Yields:
        The address, and the list of the requests so far.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
            requests.append(f"{self.command} {path}")
            found = path in files
            content = files.get(path, b"")
            content, named = content if isinstance(content, tuple) else (content, content)
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            if found:
                self.send_header("ETag", f'"{hashlib.sha256(named).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Error-Message", "Entry not found")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
