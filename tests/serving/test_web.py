"""The server answers, refuses what it must, and never shows a stack trace."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

import recbole_dpr
from recbole_dpr.commands import main
from recbole_dpr.serving import web
from recbole_dpr.serving.requests import Limits

HISTORY = ["i1", "i4", "i7", "i2"]
LIMITS = Limits(body=2000, prompt=200, turns=3, history=50, k=20, seconds=2)


@pytest.fixture(scope="module")
def recommender(trained_run):
    return recbole_dpr.load(trained_run["run_dir"])


@pytest.fixture(scope="module")
def port(recommender):
    """Of a server with small limits."""
    with serving(web.make_app(recommender, LIMITS)) as port:
        yield port


@contextmanager
def serving(app, host="127.0.0.1"):
    """Serve an application while inside; gives the port."""
    listening = web.listen(host, 0)
    server = web.make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def ask(port, path, body=None):
    """Status and content of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_answer_is_the_recommenders(port, recommender):
    status, answer = ask(port, "/recommend", {"history": HISTORY, "prompt": "red please", "k": 4})
    (expected,) = recommender.recommend([HISTORY], ["red please"], k=4)
    assert status == 200 and [(r["item"], r["score"]) for r in answer["items"]] == expected
    assert answer["items"][0]["title"].startswith("Thing number")
    assert answer["read"]["include"] == ["red"] and answer["skipped"] == 0


def test_an_explained_answer_has_both_lists(port, recommender):
    asked = {"history": [*HISTORY, "x"], "prompt": ["red", "no blue"], "explain": True, "k": 5}
    _, answer = ask(port, "/recommend", asked | {"exclude_history": True})
    assert [row["rank"] for row in answer["items"]] == [1, 2, 3, 4, 5]
    assert [row["rank_before"] for row in answer["before"]] == [1, 2, 3, 4, 5]
    assert answer["skipped"] == 1 and answer["read"]["exclude"] == ["blue"]
    assert not {row["item"] for row in answer["items"]} & {*HISTORY}


def test_health_titles_and_users(port):
    status, health = ask(port, "/health")
    assert status == 200 and health["status"] == "ok" and health["limits"]["k"] == LIMITS.k
    assert ask(port, "/items?q=NUMBER%202")[1][0] == {"item": "i2", "title": "Thing number 2"}
    assert len(ask(port, "/items?q=thing")[1]) == web.FOUND and ask(port, "/items?q=%20")[1] == []
    assert [row["item"] for row in ask(port, "/items?id=i3&id=nope&id=i1")[1]] == ["i3", "i1"]
    users = ask(port, "/users")[1]
    assert len(users) == 40 and len(users[0]["history"]) == 10


def test_items_are_found_by_title_or_token_whatever_the_case():
    titles = {"B07-Xa": "Straße", "b2": "a Red hat", "B3": "Redder", "red": "", "r4": "red b2"}
    search = web.TitleSearch(titles)

    def found(text):
        return [row["item"] for row in search(text)]

    assert found("b07-x") == found("STRASSE") == ["B07-Xa"]
    assert found("RED") == ["red", "r4", "B3", "b2"]  # the token, then what begins with it
    assert found("b2") == ["b2", "r4"] and found("nothing") == []
    assert found("b") == ["b2", "B3", "B07-Xa", "r4"]
    many = web.TitleSearch({f"i{n}": f"title {n}" for n in range(50)})
    assert len(many("title")) == web.FOUND


def test_others_are_answered_while_items_are_searched(port, monkeypatch):
    answered, searched = threading.Event(), []
    monkeypatch.setattr(
        web.TitleSearch, "__call__", lambda *_: searched.append(answered.wait(5)) or []
    )
    search = threading.Thread(target=ask, args=(port, "/items?q=thing"))
    search.start()
    time.sleep(0.3)  # until it is searching
    assert ask(port, "/health")[0] == 200
    answered.set()
    search.join()
    assert searched == [True]


def status_for(host_name, port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health", headers={"Host": host_name})
    return connection.getresponse().status


def test_a_server_for_this_machine_alone_answers_to_its_names_only(recommender):
    with web.listen("localhost", 0) as listening:
        hosts = web.host_names(listening, "localhost")
    with web.listen("0.0.0.0", 0) as listening:
        assert web.host_names(listening, "0.0.0.0") is None
    with serving(web.make_app(recommender, hosts=hosts)) as port:
        for name in ("127.0.0.1", "localhost", "[::1]"):
            assert status_for(name, port) == status_for(f"{name}:{port}", port) == 200
        for name in ("rebound.example", f"rebound.example:{port}", "localhost.example", ""):
            assert status_for(name, port) == 400


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the request is no JSON"),
        (b"\xff\xfe", 400, "the request is no JSON"),
        (b"", 400, "the request is no JSON"),
        (b"[" * 1900, 400, "the request is no JSON"),
        (b"7", 400, "must be a JSON object"),
        ({"prompt": "red"}, 400, '"history" is missing'),
        ({"history": HISTORY, "promt": 1}, 400, "did you mean 'prompt'"),
        ({"history": {"a": 1}}, 400, '"history" must be a list'),
        ({"history": []}, 400, "at least one item"),
        ({"history": ["x"]}, 400, "no item of tiny"),
        ({"history": ["x", "i1"], "strict": True}, 400, "no item of tiny"),
        ({"history": ["i1"] * 51}, 400, "history, in items, is limited to 50"),
        (
            {"history": HISTORY, "prompt": "x" * 201},
            400,
            "prompt, in characters, is limited to 200",
        ),
        ({"history": HISTORY, "prompt": ["x"] * 4}, 400, "number of turns is limited to 3"),
        ({"history": HISTORY, "k": 21}, 400, "k is limited to 20 here, not 21"),
        ({"history": HISTORY, "k": 10**400}, 400, "k is limited to 20 here, not far more"),
        ({"history": HISTORY, "k": 0}, 400, "k must be a whole number"),
        ({"history": HISTORY, "k": "9"}, 400, '"k" must be a whole number'),
        ({"history": HISTORY, "strength": -1}, 400, "strength must be"),
        ({"history": HISTORY, "strength": float("nan")}, 400, "strength must be"),
        ({"history": HISTORY, "strength": float("inf")}, 400, "strength must be"),
        ({"history": HISTORY, "include": ["rde"]}, 400, "did you mean 'red'"),
        (b" " * 2001, 413, "a request may have 2000 bytes"),
        (b"x" * 10_000_000, 413, "a request may have 2000 bytes"),
    ],
)
def test_wrong_requests_get_an_error_and_no_trace(port, body, status, message):
    try:
        found, answer = ask(port, "/recommend", body)
    except (ConnectionError, urllib.error.URLError):
        assert status == 413  # closed while the rest was still being sent
        return
    assert found == status and message in answer["error"]
    assert list(answer) == ["error"] and "Traceback" not in answer["error"]


def test_a_body_that_grows_too_large_while_it_comes(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/recommend", iter([b"x" * 1500] * 2), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert connection.getresponse().status == 413


def test_a_body_that_never_comes(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_an_answer_that_takes_too_long_and_one_that_fails(trained_run):
    slow = recbole_dpr.load(trained_run["run_dir"])
    with serving(web.make_app(slow, Limits(seconds=0.2))) as port:
        slow.answer = lambda *_, **__: time.sleep(0.6)
        status, answer = ask(port, "/recommend", {"history": HISTORY})
        assert status == 503 and "no answer within 0.2 s" in answer["error"]
        slow.answer = lambda *_, **__: 1 / 0
        status, answer = ask(port, "/recommend", {"history": HISTORY})
        assert status == 500 and answer == {
            "error": "something went wrong here; the server's log tells what"
        }


def test_who_gave_up_waiting_is_not_worked_for(trained_run):
    busy = recbole_dpr.load(trained_run["run_dir"])
    begun = []
    answer = busy.answer
    with serving(web.make_app(busy, Limits(seconds=0.5))) as port:
        busy.answer = lambda *_, **__: begun.append(1) or time.sleep(1.5)
        asked = [
            threading.Thread(target=ask, args=(port, "/recommend", {"history": HISTORY}))
            for _ in range(3 * web.WORKERS)
        ]
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join()
        time.sleep(1.5)
        assert len(begun) == web.WORKERS  # the others had left before their turn came
        busy.answer = answer
        assert ask(port, "/recommend", {"history": HISTORY})[0] == 200


def test_other_paths_and_methods(port):
    assert ask(port, "/nowhere") == (404, {"error": "Not Found"})
    assert ask(port, "/recommend") == (405, {"error": "Method Not Allowed"})
    assert ask(port, "/../recommender.py")[0] == 404


def test_the_page_loads_nothing_from_elsewhere(port):
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            text = response.read().decode()
            assert response.headers["content-type"].startswith(kind)
            assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text


def test_the_command_listens_on_this_machine_alone_until_it_is_told_to_end(trained_run):
    command = [sys.executable, "-m", "recbole_dpr", "serve", trained_run["run_dir"], "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline()
            assert address.startswith("http://127.0.0.1:")
            port = int(address.strip("/\n").rsplit(":", 1)[1])
            assert ask(port, "/health")[0] == 200
            assert status_for(f"rebound.example:{port}", port) == 400
        finally:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (out, err) == ("", "")


def test_a_port_that_is_taken(port, trained_run, capsys):
    assert main(["serve", trained_run["run_dir"], f"--port={port}"]) == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
