"""A scripted OpenAI-compatible endpoint: judges by words in the steps, and misbehaves as it is told.

    python tests/labeling/judge/scripted_server.py --latency 0.2 --log requests.log

It reads the prompt as the model would: the mark from the first line, the steps between tags with that mark. A
step with WRONG in it is wrong, with STALL adds nothing, with VAGUE cannot be verified; every other one is good.

A behaviour is a function of (request number from 0, steps, body) that returns an action: a dict with `status`,
`headers`, `body` (bytes or JSON), `delay`, `drip` (seconds between the bytes of the body), `close`, `cut` (bytes of the
body after which the connection is closed). What it leaves out is answered honestly.
"""

import argparse
import asyncio
import json
import re
import sys
import threading
from pathlib import Path

MARK = re.compile(r"\A(?:The mark is|标记是) ([0-9a-f]{8})[.。]")


def steps_of(body):
    """(id, text) of each step as the prompt delimits them."""
    user = body["messages"][1]["content"]
    mark = MARK.search(user)[1]
    tag = rf'<(?:step {mark} id="(\w+)"|paragraph_(\d+) {mark})>\n(.*?)\n</(?:step|paragraph_\d+) {mark}>'
    return [(match[1] or match[2], match[3]) for match in re.finditer(tag, user, re.DOTALL)]


def entry(step_id, text, **changes):
    correct = "no" if "WRONG" in text else "yes"
    words = {"correct": correct, "verifiable": "no" if "VAGUE" in text else "yes"}
    words["progress"] = "no" if "STALL" in text else "yes"
    quote = " ".join(text.split()[:8])
    return {"id": step_id, "quote": quote, "reason": f"it says {text.split()[0]}", **words, **changes}


def honest(steps, body):
    if steps and steps[0][0].isdigit():
        wrong = next((index for index, (_, text) in enumerate(steps) if "WRONG" in text), -1)
        return f"I went through it. \\boxed{{{wrong}}}"
    return json.dumps({"steps": [entry(step_id, text) for step_id, text in steps]})


def completion(text, finish="stop", usage=(100, 50), **message):
    value = {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
    }
    if usage:
        value["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
        value["usage"]["total_tokens"] = sum(usage)
    return value


class ScriptedServer:
    """The server in a thread of its own. `requests` holds every request body, in order of arrival."""

    def __init__(self, behaviour=None, latency=0.0, log=None, port=0, fixed=None):
        """`fixed` is a text that answers everything; the requests are then neither read nor kept."""
        self.behaviour = behaviour or (lambda number, steps, body: {})
        self.latency = latency
        self.requests = []
        self.headers = []
        self.in_flight = self.peak = 0
        self._log = log
        self._fixed = json.dumps(completion(fixed)).encode() if fixed is not None else None
        self._port = port
        self._ready = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self):
        self._loop, self._stop, self._tasks = asyncio.get_running_loop(), asyncio.Event(), set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, backlog=4096, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        }
        raw = await reader.readexactly(int(headers["content-length"]))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if self._fixed is not None:
            await asyncio.sleep(self.latency)
            self.in_flight -= 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(self._fixed), self._fixed))
            return True
        body = json.loads(raw)
        number = len(self.requests)
        self.requests.append(body)
        self.headers.append(headers)
        if self._log:
            self._log.write(headers.get("x-client-request-id", "?") + "\n")
            self._log.flush()
        try:
            return await self._answer(number, body, writer)
        finally:
            self.in_flight -= 1

    async def _answer(self, number, body, writer):
        steps = steps_of(body)
        action = self.behaviour(number, steps, body)
        await asyncio.sleep(action.get("delay", self.latency))
        if action.get("close"):
            return False
        content = action.get("body")
        if content is None:
            content = completion(honest(steps, body)) if action.get("status", 200) == 200 else {"error": "scripted"}
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {action.get('status', 200)} X", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in action.get("headers", {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if "cut" in action:
            writer.write(content[: action["cut"]])
            await writer.drain()
            return False
        if "drip" in action:
            for index in range(len(content)):
                writer.write(content[index : index + 1])
                await writer.drain()
                await asyncio.sleep(action["drip"])
        else:
            writer.write(content)
        await writer.drain()
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--log", type=Path, help="append the id of every request")
    parser.add_argument("--fixed", help="answer everything with this text, unread")
    arguments = parser.parse_args()
    log = arguments.log.open("a") if arguments.log else None
    with ScriptedServer(None, arguments.latency, log, arguments.port, arguments.fixed) as server:
        print(server.url, flush=True)
        sys.stdin.read()  # until whoever started us is gone
        print(server.peak, flush=True)


if __name__ == "__main__":
    main()
