"""A stand-in for the hub: the part of Hugging Face's HTTP that pushing and pulling a model takes, in a thread."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

LFS_FROM = 2048  # bytes from which a file goes by LFS


class Hub:
    """Repositories in memory.

    Attributes:
      commits: {repository: [{path: content}, ...]}, oldest first.
      refused: status that every request gets; 0 for none.
      altered: {path: content} that is served in place of the file.
      requests: (method, path) of each request.
    """

    def __init__(self):
        self.commits, self.blobs, self.refused, self.altered, self.requests = {}, {}, 0, {}, []
        self.address = ""

    def sha(self, repository):
        return hashlib.sha1(f"{repository} {len(self.commits[repository])}".encode()).hexdigest()

    def files(self, repository):
        return self.commits[repository][-1]


def entry(path, content):
    """Returns what the listing of a repository says of a file."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    out = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if len(content) >= LFS_FROM:
        digest = hashlib.sha256(content).hexdigest()
        out |= {"oid": "0" * 40, "lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}
    return out


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, content=b"", status=200, **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle_request(self):
        hub, url = self.hub, urllib.parse.urlsplit(self.path)
        path, body = urllib.parse.unquote(url.path), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append((self.command, path))
        if hub.refused:
            return self.answer({"error": "refused"}, hub.refused)
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else f"me/{given['name']}"
            known = name in hub.commits
            hub.commits.setdefault(name, [{}])
            return self.answer({"url": f"{hub.address}/{name}"}, 409 if known else 200)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/upload/(\w+)", path):
            hub.blobs[found[1]] = body
            return self.answer()
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+)(?:/.*)?)?", path):
            repository, what, revision = found.groups()
            known = repository in hub.commits
            if not known or (revision and revision not in ("main", hub.sha(repository))):
                code = "RevisionNotFound" if known else "RepoNotFound"
                return self.answer({"error": "not found"}, 404, X_Error_Code=code)
            return self.api(repository, what or "revision", body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, _, file = found.groups()
            if repository not in hub.commits:
                return self.answer({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
            if file not in hub.files(repository):
                return self.answer({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
            listed = entry(file, hub.files(repository)[file])
            content = hub.altered.get(file, hub.files(repository)[file])
            tag = listed.get("lfs", listed)["oid"]
            linked = {"X_Linked_Etag": f'"{tag}"', "X_Linked_Size": str(len(content))} if "lfs" in listed else {}
            return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=hub.sha(repository), **linked)
        return self.answer({"error": "no such address"}, 404)

    def api(self, repository, what, body):
        hub = self.hub
        if what == "revision":
            siblings = [{"rfilename": name} for name in hub.files(repository)]
            about = {"id": repository, "sha": hub.sha(repository), "siblings": siblings, "tags": [], "private": False}
            return self.answer({**about, "downloads": 0, "likes": 0})
        if what == "tree":
            return self.answer([entry(name, content) for name, content in hub.files(repository).items()])
        if what == "preupload":
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["size"] >= LFS_FROM else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": modes})
        assert what == "commit"
        files = dict(hub.files(repository))
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = hub.blobs[line["value"]["oid"]]
        hub.commits[repository].append(files)
        address = f"{hub.address}/{repository}/commit/{hub.sha(repository)}"
        return self.answer({"success": True, "commitUrl": address, "commitOid": hub.sha(repository)})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


@contextlib.contextmanager
def running():
    """Runs a hub for as long as the context lasts, and gives it."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
