"""Chat completions through the official SDK. Arguments: base URL (with /v1), key,
statuses to be refused with, and `errors` where nothing else is to be checked."""

import sys

import openai

BASE_URL, KEY, STATUSES = sys.argv[1:4]
MODEL = "gpt-5"


def client(key=KEY, **settings):
    settings.setdefault("max_retries", 0)
    settings.setdefault("timeout", 20.0)
    return openai.OpenAI(api_key=key, base_url=BASE_URL, **settings)


def ask(name, **more):
    return dict(model=MODEL, messages=[{"role": "user", "content": f"CASE:{name} grüß"}], **more)


def whole():
    reply = client().chat.completions.create(**ask("text"))
    assert reply.choices[0].message.content == "hello world" and reply.usage.total_tokens == 14, reply


def streams():
    for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": {"include_usage": True}}):
        chunks = list(client().chat.completions.create(**ask("text"), stream=True, **options))
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == "hello world", chunks
        wanted = bool(options) and options["stream_options"]["include_usage"]
        usage = [chunk.usage for chunk in chunks if chunk.usage]
        assert len(usage) == int(wanted), (options, usage)
        assert all(chunk.choices for chunk in chunks) or wanted, "the usage chunk was not asked for"


def errors():
    expected = {
        "400": openai.BadRequestError,
        "401": openai.AuthenticationError,
        "404": openai.NotFoundError,
        "429": openai.RateLimitError,
        "500": openai.InternalServerError,
    }
    for status in STATUSES.split(","):
        kind = expected[status]
        for stream in (False, True):
            try:
                client("wrong" if status == "401" else KEY).chat.completions.create(**ask(status), stream=stream)
            except kind as error:
                assert error.status_code == int(status), error
            else:
                raise AssertionError(f"{status} raised nothing")


def timeouts():
    try:
        client(timeout=0.6).chat.completions.create(**ask("silent"))
    except openai.APITimeoutError:
        return
    raise AssertionError("silence raised nothing")


for check in (errors,) if sys.argv[4:] == ["errors"] else (whole, streams, errors, timeouts):
    check()
print("all checks passed")
