"""Repliers choose words: from a script, from the user's own, or from a chat endpoint over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from csm.conversation.repliers import ChatReplier, EchoReplier, SaidTurn, ScriptReplier


class Chat(BaseHTTPRequestHandler):
    """An endpoint that answers as OpenAI's does."""

    asked: list = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Chat.asked.append((self.path, self.headers["Authorization"], body))
        if body["model"] == "missing":
            self.send_error(404, "no such model")
            return
        self.send_response(200)
        self.end_headers()
        for token in ("Well, ", "I ", "did ", "not."):
            row = {"choices": [{"delta": {"content": token}}]}
            self.wfile.write(f"data: {json.dumps(row)}\n\n".encode())
        last = "{broken" if body["model"] == "broken" else "[DONE]"
        self.wfile.write(f'data: {{"choices": [{{"delta": {{}}}}]}}\n\ndata: {last}\n\n'.encode())

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


TURNS = [SaidTurn(True, "hello"), SaidTurn(False, "hi the"), SaidTurn(True, "who took it")]


def test_a_script_answers_line_by_line_and_repeats_its_last() -> None:
    script = ScriptReplier(("one", "two"))
    assert [*script.reply(TURNS[:1])] == ["one"] and [*script.reply(TURNS)] == ["two"]
    assert [*script.reply(TURNS + TURNS[1:])] == ["two"]
    with pytest.raises(ValueError, match="script has no line"):
        ScriptReplier(())


def test_an_echo_repeats_the_user() -> None:
    assert "".join(EchoReplier().reply(TURNS)) == "You said: who took it"


def test_a_chat_endpoint_gets_what_was_heard_and_streams_its_tokens(address) -> None:
    pieces = [*ChatReplier(url=address, key="secret", model="m").reply(TURNS)]
    assert "".join(pieces) == "Well, I did not." and len(pieces) > 3
    path, key, body = Chat.asked[-1]
    assert path == "/v1/chat/completions" and key == "Bearer secret" and body["stream"] is True
    assert [(row["role"], row["content"]) for row in body["messages"]][1:] == [
        ("user", "hello"),
        ("assistant", "hi the"),
        ("user", "who took it"),
    ]
    assert "".join(ChatReplier(url=address, longest=8).reply(TURNS)) == "Well, I "


@pytest.mark.parametrize(("model", "reason"), [("missing", "404"), ("broken", "check the address")])
def test_an_endpoint_that_fails_is_one_line(address, model, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        [*ChatReplier(url=address, model=model).reply(TURNS)]
    with pytest.raises(ValueError, match="chat endpoint"):
        [*ChatReplier(url="http://127.0.0.1:1/v1").reply(TURNS)]
    with pytest.raises(ValueError, match="url is"):
        ChatReplier(url="localhost")
