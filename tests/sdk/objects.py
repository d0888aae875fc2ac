"""Files and batches through the official SDKs. Arguments: base URL, key, another key."""

import json
import sys

import anthropic
import openai

BASE_URL, KEY, OTHER = sys.argv[1:4]
# No text in any coding, and larger than anything that is held.
CONTENT = bytes(range(256)) * 4_000


def claude(key=KEY, base_url=BASE_URL):
    return anthropic.Anthropic(api_key=key, base_url=base_url, max_retries=0, timeout=20.0)


def chat(key=KEY):
    return openai.OpenAI(api_key=key, base_url=BASE_URL + "/v1", max_retries=0, timeout=20.0)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def request(model="ok-1"):
    params = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "hello"}]}
    return {"custom_id": "a", "params": params}


def messages(base_url):
    client, other = claude(base_url=base_url), claude(OTHER, base_url)
    batches = client.messages.batches
    made = batches.create(requests=[request(), request()])
    assert made.id in [it.id for it in batches.list(limit=1)], "pages are read on"
    assert batches.retrieve(made.id).processing_status == "ended"
    results = list(batches.results(made.id))
    assert [it.custom_id for it in results] == ["a"], results
    assert made.id not in [it.id for it in other.messages.batches.list(limit=1)]
    raises(anthropic.NotFoundError, lambda: other.messages.batches.results(made.id))
    raises(anthropic.NotFoundError, lambda: other.messages.batches.cancel(made.id))
    raises(anthropic.NotFoundError, lambda: batches.create(requests=[request(), request("forbidden")]))
    batches.delete(made.id)
    raises(anthropic.NotFoundError, lambda: batches.retrieve(made.id))


def files_of_claude():
    files, others = claude().beta.files, claude(OTHER).beta.files
    made = files.upload(file=("f.bin", CONTENT, "application/octet-stream"))
    assert files.download(made.id).read() == CONTENT
    assert files.retrieve_metadata(made.id).id == made.id
    assert made.id in [it.id for it in files.list()] and made.id not in [it.id for it in others.list()]
    raises(anthropic.NotFoundError, lambda: others.download(made.id))
    raises(anthropic.NotFoundError, lambda: others.delete(made.id))
    files.delete(made.id)
    raises(anthropic.NotFoundError, lambda: files.retrieve_metadata(made.id))


def lines(model):
    call = {"model": model, "messages": []}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": call}
    return ("f.jsonl", (json.dumps(line) + "\n").encode() * 3)


def batches_of_chat():
    client, other = chat(), chat(OTHER)
    made = client.files.create(file=lines("ok-1"), purpose="batch")
    raises(openai.NotFoundError, lambda: client.files.create(file=lines("forbidden"), purpose="batch"))
    settings = dict(endpoint="/v1/chat/completions", completion_window="24h", input_file_id=made.id)
    raises(openai.NotFoundError, lambda: other.batches.create(**settings))
    batch = client.batches.create(**settings)
    assert client.batches.retrieve(batch.id).status == "completed"
    assert client.files.content(batch.output_file_id).read().startswith(b"{")
    raises(openai.NotFoundError, lambda: other.files.content(batch.output_file_id))
    assert batch.id in [it.id for it in client.batches.list(limit=1)]
    assert batch.id not in [it.id for it in other.batches.list(limit=1)]
    binary = client.files.create(file=("f.bin", CONTENT), purpose="user_data")
    assert client.files.content(binary.id).read() == CONTENT
    assert client.files.delete(binary.id).deleted
    assert {it.id for it in other.files.list()}.isdisjoint({made.id, batch.output_file_id})


messages(BASE_URL)
messages(BASE_URL + "/anthropic")
files_of_claude()
batches_of_chat()
print("all checks passed")
