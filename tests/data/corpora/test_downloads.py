"""Downloads resume and are verified; malicious archives are refused."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading

import pytest

from csm.data.corpora.downloads import download, unpack

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `server.break_after` cuts the connection, `server.ranges` are recorded."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        first = int(asked.split("=")[1].rstrip("-")) if asked and self.path != "/no-ranges" else 0
        if first >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.break_after, instance.ranges = None, []
        threading.Thread(target=instance.serve_forever, daemon=True).start()
        instance.url = f"http://127.0.0.1:{instance.server_port}"
        yield instance
        instance.shutdown()


def test_a_file_is_downloaded_once(server, tmp_path) -> None:
    for _ in range(2):
        assert download(server.url + "/f", tmp_path / "new/f", sha256=SHA256).read_bytes() == CONTENT
    assert len(server.ranges) == 1 and [p.name for p in (tmp_path / "new").iterdir()] == ["f"]


@pytest.mark.parametrize("path", ["/f", "/no-ranges"])
def test_an_interrupted_download_resumes(server, tmp_path, path: str) -> None:
    server.break_after = 300_000
    with pytest.raises(ValueError, match="run again"):
        download(server.url + path, tmp_path / "f", sha256=SHA256)
    assert not (tmp_path / "f").exists()
    server.break_after = None
    assert download(server.url + path, tmp_path / "f", sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges[1] == "bytes=300000-"


def test_a_complete_part_needs_no_network(tmp_path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    download("http://127.0.0.1:9/f", tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_download_with_another_checksum_is_deleted(server, tmp_path) -> None:
    with pytest.raises(ValueError, match="deleted"):
        download(server.url + "/f", tmp_path / "f", sha256="0" * 64)
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    with pytest.raises(ValueError, match="deleted"):
        download(server.url + "/f", tmp_path / "f", sha256=SHA256)
    assert not list(tmp_path.iterdir())
    (tmp_path / "f").write_bytes(b"other")
    with pytest.raises(ValueError, match="delete it"):
        download(server.url + "/f", tmp_path / "f", sha256=SHA256)


def test_a_server_error_is_reported(server, tmp_path) -> None:
    with pytest.raises(ValueError, match="404"):
        download(server.url + "/missing", tmp_path / "f", sha256=SHA256)
    with pytest.raises(ValueError, match="cannot be reached"):
        download("http://127.0.0.1:9/f", tmp_path / "f", sha256=SHA256)


def make_tar(path, members: list[tarfile.TarInfo], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))


def member(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def test_plain_files_are_extracted_once(tmp_path) -> None:
    folder = member("a/deep", 0, tarfile.DIRTYPE)
    make_tar(tmp_path / "a.tar.gz", [folder, member("./a/deep/one"), member("a/b/two", 5)])
    for _ in range(2):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", most_bytes=100)
        (tmp_path / "a.tar.gz").unlink(missing_ok=True)
    assert (tmp_path / "out/a/deep/one").read_bytes() == b"xxx"
    assert (tmp_path / "out/a/b/two").read_bytes() == b"xxxxx"


BAD_MEMBERS = {
    "parent": member("../evil"),
    "inner parent": member("a/../../evil"),
    "absolute": member("/tmp/evil"),
    "windows parent": member("..\\evil"),
    "windows drive": member("c:/evil"),
    "symlink": member("link", 0, tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": member("link", 0, tarfile.LNKTYPE, "good"),
    "device": member("device", 0, tarfile.CHRTYPE),
    "pipe": member("pipe", 0, tarfile.FIFOTYPE),
    "bomb": member("bomb", 2_000_000),
    "twice": member("good"),
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_a_malicious_archive_leaves_nothing(tmp_path, kind: str) -> None:
    make_tar(tmp_path / "a.tar.gz", [member("good"), BAD_MEMBERS[kind]])
    with pytest.raises(ValueError, match=r"a\.tar\.gz"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "sub/out", most_bytes=1_000_000)
    assert not list((tmp_path / "sub").iterdir()) and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", [0, 10, 0.5])
def test_a_damaged_archive_leaves_nothing(tmp_path, cut: float) -> None:
    make_tar(tmp_path / "a.tar.gz", [member("a", 100_000), member("b", 100_000)])
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: int(cut * len(whole)) if cut < 1 else int(cut)])
    with pytest.raises(ValueError, match="download it again"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "sub/out", most_bytes=1_000_000)
    assert not list((tmp_path / "sub").iterdir())


ANSWERS = {
    "garbled": b"\xff\xfe no status at all\r\n\r\n",
    "garbled chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nzz\r\n",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nabcd",
    "length of 'many'": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabcd",
    "length of '-5'": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcd",
    "sends nothing": b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("fault", ANSWERS)
def test_every_fault_of_a_server_is_one_line_that_says_how_to_go_on(tmp_path, fault: str) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(ANSWERS[fault])
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        with pytest.raises(ValueError, match=r"run again|check the address") as error:
            download(url, tmp_path / "f", sha256=SHA256)
    assert url in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "f").exists()


def test_a_part_that_is_a_link_is_not_written_through(server, tmp_path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "f.part").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="f.part is a link or no file: .* delete it and run again"):
        download(server.url + "/f", tmp_path / "f", sha256=SHA256)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_header_without_end_is_refused_before_it_is_read(tmp_path, kind: int) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=kind) as tar:
        member = tarfile.TarInfo("x" * (3 << 20) if kind == tarfile.GNU_FORMAT else "x")
        if kind == tarfile.PAX_FORMAT:
            member.pax_headers = {"comment": "x" * (3 << 20)}
        tar.addfile(member)
    with pytest.raises(ValueError, match=r"cannot be extracted \(a header of \d+ bytes"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "a", most_bytes=10**6)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
