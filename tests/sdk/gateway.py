"""What only a gateway answers, through the official SDKs: model lists, and its own errors as each SDK's own classes.

Arguments: base URL, a virtual key, a virtual key whose limit is used up.
"""

import sys

import anthropic
import openai

BASE_URL, KEY, EXHAUSTED = sys.argv[1:4]


def claude(key=KEY, **settings):
    return anthropic.Anthropic(api_key=key, base_url=BASE_URL, max_retries=0, timeout=20.0, **settings)


def chat(key=KEY):
    return openai.OpenAI(api_key=key, base_url=BASE_URL + "/v1", max_retries=0, timeout=20.0)


def raises(kind, status, call):
    try:
        call()
    except kind as error:
        assert error.status_code == status, error
        return error
    raise AssertionError(f"{status} raised nothing")


def create(client, model="claude-sonnet-5-5"):
    return client.messages.create(model=model, max_tokens=16, messages=[{"role": "user", "content": "CASE:text"}])


names = [model.id for model in claude().models.list()]
assert "claude-sonnet-5-5" in names or "front" in names, names
assert claude().models.retrieve("front").id == "front"
raises(anthropic.NotFoundError, 404, lambda: claude().models.retrieve("absent"))
assert "front-chat" in [model.id for model in chat().models.list()]

raises(anthropic.AuthenticationError, 401, lambda: create(claude("wrong")))
raises(openai.AuthenticationError, 401, lambda: chat("wrong").chat.completions.create(model="front-chat", messages=[]))
create(claude(EXHAUSTED))
limited = raises(anthropic.RateLimitError, 429, lambda: create(claude(EXHAUSTED)))
assert int(limited.response.headers["retry-after"]) >= 1
large = [{"role": "user", "content": "x" * (33 * 1024 * 1024)}]
too_large = lambda: claude().messages.create(model="front", max_tokens=1, messages=large)
try:
    raises(anthropic.APIStatusError, 413, too_large)
except anthropic.APIConnectionError as error:
    raise AssertionError(f"413 must be seen before the connection ends: {error.__cause__}") from error
# A bearer token instead of a key.
assert create(anthropic.Anthropic(auth_token=KEY, base_url=BASE_URL, max_retries=0)).type == "message"
# The prefix that names the dialect.
assert create(anthropic.Anthropic(api_key=KEY, base_url=BASE_URL + "/anthropic", max_retries=0)).type == "message"
print("all checks passed")
