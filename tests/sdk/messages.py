"""The Messages API through the official SDK: what a program sees must be the same with and without a gateway.

Arguments: base URL, key, statuses to be refused with (400,404), and `errors` where nothing else is to be checked. The
upstream answers by the word CASE:<name> in the prompt.
"""

import base64
import inspect
import sys

import anthropic

BASE_URL, KEY, STATUSES = sys.argv[1:4]
MODEL = "claude-sonnet-5-5"
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a place",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]


def client(key=KEY, **settings):
    settings.setdefault("max_retries", 0)
    settings.setdefault("timeout", 20.0)
    return anthropic.Anthropic(api_key=key, base_url=BASE_URL, **settings)


def ask(name, **more):
    return dict(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": f"CASE:{name} grüß \U0001f600"}], **more)


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def whole():
    message = client().messages.create(**ask("text"))
    assert text_of(message) == "hello world", message
    assert message.stop_reason == "end_turn" and message.usage.output_tokens == 3, message
    raw = client().messages.with_raw_response.create(**ask("text"))
    assert raw.headers.get("request-id") == "req_01", raw.headers


def streams():
    with client().messages.stream(**ask("text")) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert pieces == ["hello", " world"], pieces
    assert text_of(final) == "hello world" and final.usage.output_tokens == 3, final
    kinds = [event.type for event in client().messages.create(**ask("text"), stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds


def tools():
    message = client().messages.create(**ask("tools", tools=TOOLS))
    calls = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use" and [call.input for call in calls] == [{"city": "Oslo"}, {"city": "Bern"}]
    with client().messages.stream(**ask("tools", tools=TOOLS)) as stream:
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bern"})]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
    history = ask("text", tools=TOOLS)
    history["messages"] += [
        {"role": "assistant", "content": [call.model_dump(exclude_none=True) for call in calls]},
        {"role": "user", "content": results},
    ]
    assert text_of(client().messages.create(**history)) == "hello world"


def thinking():
    with client().messages.stream(**ask("thinking", thinking={"type": "enabled", "budget_tokens": 1024})) as stream:
        final = stream.get_final_message()
    block = final.content[0]
    assert (block.type, block.thinking, block.signature) == ("thinking", "let me see", "c2lnbmF0dXJl"), block
    assert text_of(final) == "hello world"


def images():
    data = base64.b64encode(bytes(range(256)) * 400).decode()
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "text", "text": "CASE:text what is this?"},
    ]
    message = client().messages.create(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": content}])
    assert text_of(message) == "hello world"


def count_tokens():
    counted = client().messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "CASE:text"}])
    assert counted.input_tokens == 42, counted


def errors():
    expected = {
        "400": anthropic.BadRequestError,
        "401": anthropic.AuthenticationError,
        "404": anthropic.NotFoundError,
        "413": anthropic.APIStatusError,
        "429": anthropic.RateLimitError,
        "529": (anthropic.InternalServerError, anthropic._exceptions.OverloadedError),
    }
    for status in STATUSES.split(","):
        kind = expected[status]
        for stream in (False, True):
            try:
                # A provider's 401 is never the caller's; the caller's own comes from a wrong key.
                client("wrong" if status == "401" else KEY).messages.create(**ask(status), stream=stream)
            except kind as error:
                assert error.status_code == int(status), error
                assert error.body["type"] == "error" and error.body["error"]["message"], error.body
            else:
                raise AssertionError(f"{status} raised nothing")


def error_in_a_stream():
    try:
        with client().messages.stream(**ask("broken")) as stream:
            pieces = []
            for piece in stream.text_stream:
                pieces.append(piece)
    except anthropic.APIStatusError as error:
        assert "verload" in str(error.body), error
        assert pieces == ["hello"], pieces
    else:
        raise AssertionError("an error event raised nothing")


def timeouts():
    try:
        client(timeout=0.6).messages.create(**ask("silent"))
    except anthropic.APITimeoutError:
        pass
    else:
        raise AssertionError("silence raised nothing")


# The overload is last: a route backs off after it.
CHECKS = [errors] if sys.argv[4:] == ["errors"] else [whole, streams, tools, thinking, images, count_tokens, errors, timeouts, error_in_a_stream]
for check in CHECKS:
    assert not inspect.iscoroutinefunction(check)
    check()
print("all checks passed")
