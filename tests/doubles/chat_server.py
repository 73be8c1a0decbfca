"""An OpenAI-compatible chat server on a free port: scripted answers for what goes wrong, a real model for the rest."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import torch


class Reply(NamedTuple):
    """What the server does with one request."""

    content: Any = None
    status: int = 200
    body: Any = None
    """The whole body instead of a chat completion; text or JSON."""
    headers: dict[str, str] = {}  # noqa: RUF012
    kind: str = "application/json"
    delay: float = 0.0


class ChatServer:
    """Serves until its `with` ends.

    Args:
        script: Replies, one a request.
        write: Called with the request when the script is at its end; returns the answer's text.
    """

    def __init__(self, script=(), write=None):
        self.script, self.write = list(script), write
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.raw: list[str] = []
        self.answers: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                server._answer(self)

            def log_message(self, *args):
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def _answer(self, handler):
        raw = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        self.raw.append(raw)
        self.requests.append(json.loads(raw))
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        if handler.path != "/v1/chat/completions":
            reply = Reply(status=404, body={"error": {"message": "no such path"}})
        elif self.script:
            reply = self.script.pop(0)
        else:
            reply = Reply(self.write(self.requests[-1]))
            self.answers.append(reply.content)
        time.sleep(reply.delay)
        body = reply.body if reply.body is not None else completion(reply.content)
        sent = (body if isinstance(body, str) else json.dumps(body)).encode()
        try:
            handler.send_response(reply.status)
            for name, value in {"Content-Type": reply.kind, "Content-Length": str(len(sent)), **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(sent)
        except OSError:
            pass  # whoever asked is gone


def completion(content):
    """Return a chat completion."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }


class ModelWriter:
    """Answers with a transformers model.

    Args:
        folder: The model.
        guided: How many triggers the answer is held to: the frame of JSON is given, and the model writes the texts, of
            printable ASCII characters, as with servers that hold a model to a schema. 0 lets it write freely.
        tokens: Most tokens of a text, or of a free answer.
    """

    def __init__(self, folder, guided=0, tokens=6):
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.guided, self.tokens = guided, tokens
        words = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        self.unfit = torch.tensor([not (word.isascii() and word.isprintable()) for word in words])

    def __call__(self, request):
        """Return the answer to a request."""
        noise = torch.Generator().manual_seed(request.get("seed", 0))
        heat = request.get("temperature", 1.0)
        if self.tokenizer.chat_template:
            prompt = self.tokenizer.apply_chat_template(
                request["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        else:
            prompt = self._ids("\n".join(message["content"] for message in request["messages"]))[-400:]
        if not self.guided:
            return self._go_on(prompt, heat, noise, None)
        levels = ("character", "word", "sentence")
        entries = []
        for nth in range(self.guided):
            so_far = json.dumps({"triggers": entries})[:-2] + ', {"level": "word", "text": "'
            text = self._go_on(prompt + self._ids(so_far), heat, noise, '"').strip()
            entries.append({"level": levels[nth % 3], "text": text})
        return json.dumps({"triggers": entries})

    def _ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _go_on(self, ids, heat, noise, end):
        new, past, step = [], None, torch.tensor([ids])
        with torch.inference_mode():
            while len(new) < self.tokens:
                made = self.model(step, past_key_values=past, use_cache=True)
                past, last = made.past_key_values, made.logits[0, -1]
                if end:
                    last = last.masked_fill(torch.nn.functional.pad(self.unfit, (0, len(last) - len(self.unfit))), -1e9)
                chosen = (
                    torch.multinomial((last / heat).softmax(0), 1, generator=noise) if heat else last.argmax()[None]
                )
                if int(chosen) == self.tokenizer.eos_token_id or (end and end in self.tokenizer.decode(chosen)):
                    break
                new.append(int(chosen))
                step = chosen[None]
        return self.tokenizer.decode(new, skip_special_tokens=True)
