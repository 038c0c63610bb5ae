"""Chat requests of three kinds: a short question, a long document, and long source code (nearly all escapes)."""

import json

MODEL = "gpt-4"
_PROSE = "The gateway reads the name of the model while the prompt goes by, and looks at nothing else in it. "
_CODE = 'def route(request):\n\tif request["model"] == "gpt-4":\n\t\treturn "backend\\\\one"\n'


def chat(prompt: str) -> bytes:
    """The `model` comes first, as the OpenAI clients write it; the scanner reads to the end all the same (a second `model`
    must not pass unseen)."""
    document = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 256, "temperature": 0.7}
    return json.dumps(document).encode()


def prose(size: int) -> bytes:
    return _filled(_PROSE, size)


def code(size: int) -> bytes:
    return _filled(_CODE, size)


def _filled(text: str, size: int) -> bytes:
    room = size - len(chat(""))
    return chat(text * (room // len(json.dumps(text)[1:-1])))
