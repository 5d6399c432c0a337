"""A stand-in for the Hugging Face Hub on 127.0.0.1, for the real huggingface_hub client.

It speaks what the client asks for when it makes a repository, uploads (files in
the commit, or LFS), tags, lists and downloads, with ranges. A `fault` may
answer any request in its place.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

LARGE = (".h5", ".safetensors", ".npz", ".png")  # go to LFS where the server is told to use it


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Hub:
    """Repositories in memory.

    Args:
        lfs: Whether large files are uploaded and named as LFS objects.
        token: The token that writes need; `None` lets everyone write.
        files: `{path: content}` beside the repositories, a path being that of
            the URL. A content is bytes, or a pair: those served, and those that
            the ETag speaks of.
        commit: The commit that is named for `files`.
    """

    def __init__(self, lfs=False, token=None, files=None, commit="0" * 40):
        self.lfs, self.token, self.commit_of_files = lfs, token, commit
        self.files = {} if files is None else files
        self.repositories = {}  # name -> {"commits": [(id, {path: content})], "tags": {tag: id}, "private": bool}
        self.objects = {}  # LFS: sha256 -> content
        self.requests = []  # "METHOD path"
        self.refusal = None  # what the validation of cards says
        self.fault = None  # a function of the request; true where it has answered

    def __enter__(self):
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def commit(self, repository, files, replace=True):
        """Adds a commit to a repository, made if need be; returns the commit's id."""
        kept = self.repositories.setdefault(repository, {"commits": [], "tags": {}, "private": False})
        before = dict(kept["commits"][-1][1]) if kept["commits"] and not replace else {}
        content = {**before, **files}
        named = json.dumps([repository, len(kept["commits"]), {path: git_sha1(content[path]) for path in content}])
        kept["commits"].append((hashlib.sha1(named.encode()).hexdigest(), content))
        return kept["commits"][-1][0]

    def find(self, repository, revision):
        """(id, files) at a revision, or None."""
        kept = self.repositories[repository]
        revision = kept["tags"].get(revision, revision)
        if revision in ("main", "HEAD"):
            return kept["commits"][-1]
        return next((commit for commit in kept["commits"] if commit[0] == revision), None)

    def is_large(self, path):
        return self.lfs and path.endswith(LARGE)

    def description(self, path, content):
        """One file as the listings give it."""
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if self.is_large(path):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        return entry


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        self.route, self.query = urllib.parse.unquote(url.path).strip("/"), urllib.parse.parse_qs(url.query)
        self.hub.requests.append(f"{self.command} {self.route}")
        self.body = self.read_body()
        if self.hub.fault and self.hub.fault(self):
            return
        if self.hub.token and self.command in ("POST", "DELETE") and not self.route.startswith(("lfs", "api/validate")):
            if self.headers.get("Authorization") is None:
                return self.refuse(401, "", "Invalid username or password.")
            if self.headers["Authorization"] != f"Bearer {self.hub.token}":
                return self.refuse(403, "", "Forbidden: pass a token with write access.")
        for pattern, method in self.ROUTES:
            if match := re.fullmatch(pattern, self.route):
                return method(self, *match.groups())
        self.refuse(404, "", f"no route {self.route}")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args):
        pass

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # Answers

    def send(self, status, content=b"", headers=()):
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json", **dict(headers)}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code, message, headers=()):
        self.send(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message, **dict(headers)})

    def cut(self, part, size, headers=()):
        """Announces a size, sends a part, and drops the connection."""
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(part)
        self.wfile.flush()
        self.close_connection = True

    def send_file(self, content, etag, commit):
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if (asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) and self.command == "GET":
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.send(206, content[start:], headers)
        self.send(200, content, headers)

    # Routes

    def whoami(self):
        self.send(200, {"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})

    def validate(self):
        if self.hub.refusal:
            return self.send(400, {"errors": [{"message": self.hub.refusal}], "warnings": []})
        self.send(200, {"errors": [], "warnings": []})

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            self.hub.commit(name, {".gitattributes": b"*.h5 filter=lfs\n"})
            self.hub.repositories[name]["private"] = asked.get("visibility") == "private"
        self.send(status, {"url": f"{self.hub.address}/{name}", "name": name, "id": name})

    def list_models(self):
        author = self.query.get("author", [None])[0]
        found = [name for name in self.hub.repositories if author in (None, name.partition("/")[0])]
        self.send(200, [{"id": name, "tags": ["keras"], "private": False} for name in found])

    def found(self, repository, revision="main"):
        """(id, files) at a revision; answers itself and gives None where there is none."""
        if repository not in self.hub.repositories:
            self.refuse(404, "RepoNotFound", "Repository not found")
            return None
        commit = self.hub.find(repository, revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def information(self, repository, revision="main"):
        if not (commit := self.found(repository, revision)):
            return
        siblings = []
        for path, content in sorted(commit[1].items()):
            siblings.append({"rfilename": path})
            if "blobs" in self.query:
                entry = self.hub.description(path, content)
                siblings[-1] |= {"size": entry["size"], "blobId": entry["oid"]}
                if "lfs" in entry:
                    siblings[-1]["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
        private = self.hub.repositories[repository]["private"]
        self.send(200, {"id": repository, "sha": commit[0], "private": private, "tags": [], "siblings": siblings})

    def tree(self, repository, revision):
        if commit := self.found(repository, revision):
            self.send(200, [self.hub.description(path, content) for path, content in sorted(commit[1].items())])

    def references(self, repository):
        if commit := self.found(repository):
            tags = self.hub.repositories[repository]["tags"]
            self.send(
                200,
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit[0]}],
                    "tags": [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": tags[tag]} for tag in tags],
                    "converts": [],
                },
            )

    def tag(self, repository, revision):
        if commit := self.found(repository, revision):
            tags = self.hub.repositories[repository]["tags"]
            name = json.loads(self.body)["tag"]
            if name in tags:
                return self.refuse(409, "", "Tag already exists")
            tags[name] = commit[0]
            self.send(200, {})

    def preupload(self, repository, revision):
        if not (commit := self.found(repository, revision)):
            return
        answer = []
        for file in json.loads(self.body)["files"]:
            path, large = file["path"], self.hub.is_large(file["path"])
            answer.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False})
            if path in commit[1]:
                answer[-1]["oid"] = (sha256 if large else git_sha1)(commit[1][path])
        self.send(200, {"files": answer, "commitOid": commit[0]})

    def receive_commit(self, repository, revision):
        if not (commit := self.found(repository, revision)):
            return
        files = dict(commit[1])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.hub.commit(repository, files)
        self.send(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.address}/{repository}/commit/{oid}"}
        )

    def lfs_batch(self, repository):
        objects = []
        for item in json.loads(self.body)["objects"]:
            objects.append({"oid": item["oid"], "size": item["size"]})
            if item["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.address}/lfs/{item['oid']}", "header": {}}
                objects[-1]["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.address}/lfs-verify"}}
        self.send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def lfs_upload(self, oid):
        if sha256(self.body) != oid:
            return self.refuse(400, "", "sha256 mismatch")
        self.hub.objects[oid] = self.body
        self.send(200)

    def lfs_verify(self):
        self.send(200 if json.loads(self.body)["oid"] in self.hub.objects else 404, {})

    def resolve(self, repository, revision, path):
        if repository.startswith("datasets/"):  # only among `files`
            content = self.hub.files.get(self.route)
            if content is None:
                return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": self.hub.commit_of_files})
            content, named = content if isinstance(content, tuple) else (content, content)
            return self.send_file(content, sha256(named), self.hub.commit_of_files)
        if not (commit := self.found(repository, revision)):
            return
        if path not in commit[1]:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit[0]})
        content = commit[1][path]
        self.send_file(content, sha256(content) if self.hub.is_large(path) else git_sha1(content), commit[0])

    NAME = r"((?:datasets/)?[^/]+/[^/]+)"
    ROUTES = [
        (r"api/whoami-v2", whoami),
        (r"api/validate-yaml", validate),
        (r"api/repos/create", create),
        (r"api/models", list_models),
        (rf"api/models/{NAME}/revision/(.+)", information),
        (rf"api/models/{NAME}/tree/([^/]+)", tree),
        (rf"api/models/{NAME}/refs", references),
        (rf"api/models/{NAME}/tag/(.+)", tag),
        (rf"api/models/{NAME}/preupload/(.+)", preupload),
        (rf"api/models/{NAME}/commit/(.+)", receive_commit),
        (rf"api/models/{NAME}", information),
        (rf"{NAME}\.git/info/lfs/objects/batch", lfs_batch),
        (r"lfs/([0-9a-f]+)", lfs_upload),
        (r"lfs-verify", lfs_verify),
        (rf"{NAME}/resolve/([^/]+)/(.+)", resolve),
    ]


@contextlib.contextmanager
def hub_server(files, commit):
    """Serves single files; yields the address, and the list of the requests so far.

    The dictionary may change while the server runs.
    """
    with Hub(files=files, commit=commit) as hub:
        yield hub.address, hub.requests
